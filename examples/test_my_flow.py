"""How to test your own call flow: a real Asterisk, a real call, and the recording looked at.

pytest examples/test_my_flow.py
"""

import asyncio
from pathlib import Path

import soundfile

from examples.survey import app
from fastagi.settings import Settings
from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port


async def test_the_survey_records_what_the_caller_says(tmp_path: Path) -> None:
    port = free_port()
    async with AsteriskServer() as asterisk:
        settings = Settings.model_validate(
            {
                "agi": {"port": port},
                "asterisk": [
                    {
                        "port": asterisk.ami_port,
                        "username": asterisk.ami_user,
                        "secret": asterisk.ami_secret,
                        "spool": str(asterisk.spool),
                    }
                ],
                "recordings": {"directory": str(tmp_path)},
                "store": {"url": f"sqlite:///{tmp_path}/ledger.db"},
                "http": {"enabled": False},
            }
        )
        app.configure(settings)
        await app.start()
        try:
            await app.ami().wait_up(10)
            await asterisk.originate(
                "Local/nothing@fastagi-testing/n", application="AGI", data=f"agi://127.0.0.1:{port}/survey"
            )
            for _ in range(1000):
                files = [p for p in tmp_path.rglob("surveys/**/*.wav") if p.stat().st_size > 44]
                if files:
                    break
                await asyncio.sleep(0.02)
            assert soundfile.info(files[0]).duration < 10
        finally:
            await app.stop()
