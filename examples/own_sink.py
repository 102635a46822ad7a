"""A sink of your own: a line in a file for each recording. It may be called again for the same one after a crash.

fastagi serve --app examples.own_sink:app
exten => 103,1,AGI(agi://127.0.0.1:4573/record/start)
"""

import json
import os
from pathlib import Path

from fastagi import App, RecordingMetadata, RecordingSink

LIST = Path(os.environ.get("RECORDINGS_LIST", "recordings.jsonl"))


class ListSink(RecordingSink):
    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        line = json.dumps({"id": metadata.extra["recording_id"], "file": metadata.file_path})
        with LIST.open("a") as file:  # a slow sink may take its time: it holds no call and no other sink
            file.write(line + "\n")


app = App()
app.sink("list", ListSink())  # under a name: what it missed while the server was down is delivered after a restart


@app.default()
async def every_call(call) -> None:  # type: ignore[no-untyped-def]
    await call.answer()
    await call.record_start(sink="list")
    await call.exec("Wait", 2)
    await call.record_stop()
