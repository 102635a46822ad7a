"""How to test your own call flow: a real Asterisk, a real call, and the recording looked at.

pip install pytest pytest-asyncio soundfile
pytest examples/test_my_flow.py            # the Asterisk is the machine's own, else it is fetched, not installed
"""

import asyncio
from pathlib import Path

import pytest
import soundfile

from examples.survey import app
from fastagi import RecordingMetadata, RecordingSink
from fastagi.testing import AsteriskServer, settings_for


class Waiting(RecordingSink):
    """Hands finished recordings to the test."""

    def __init__(self) -> None:
        self.finished: asyncio.Queue[RecordingMetadata] = asyncio.Queue()

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        self.finished.put_nowait(metadata)


@pytest.mark.asyncio
async def test_the_survey_records_what_the_caller_says(tmp_path: Path) -> None:
    sink = Waiting()
    app.sink("test", sink, default=True, loop="main")  # its queue is this event loop's
    async with AsteriskServer() as asterisk:
        settings = settings_for(asterisk, tmp_path)
        app.configure(settings)
        await app.start()
        try:
            await app.ami().wait_up(10)
            await asterisk.originate(  # a caller who says nothing; `tone` and `echo` are other far ends
                "Local/nothing@fastagi-testing/n", application="AGI", data=f"agi://127.0.0.1:{settings.agi.port}/survey"
            )
            recording = await asyncio.wait_for(sink.finished.get(), 30)
            assert recording.extra["cause"] == "SILENCE"
            assert soundfile.info(recording.file_path).duration < 10
        finally:
            await app.stop()
