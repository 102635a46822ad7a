"""How to test your own call flow: a real Asterisk, a real call, and the recording looked at.

pytest examples/test_my_flow.py
"""

import asyncio
from pathlib import Path

import soundfile

from examples.survey import app
from fastagi.testing import AsteriskServer
from fastagi.testing.server_settings import settings_for


async def test_the_survey_records_what_the_caller_says(tmp_path: Path) -> None:
    async with AsteriskServer() as asterisk:
        settings = settings_for(asterisk, tmp_path)
        app.configure(settings)
        await app.start()
        try:
            await app.ami().wait_up(10)
            await asterisk.originate(
                "Local/nothing@fastagi-testing/n", application="AGI", data=f"agi://127.0.0.1:{settings.agi.port}/survey"
            )
            for _ in range(1000):
                files = [p for p in tmp_path.glob("recordings/surveys/**/*.wav") if p.stat().st_size > 44]
                if files:
                    break
                await asyncio.sleep(0.02)
            assert soundfile.info(files[0]).duration < 10
        finally:
            await app.stop()
