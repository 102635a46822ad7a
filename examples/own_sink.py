"""A sink of your own: a line in a file for each recording. It may be called again for the same one after a crash.

fastagi serve --app examples.own_sink:app
exten => 103,1,Answer()
 same => n,AGI(agi://127.0.0.1:4573/record/start)
 same => n,Dial(PJSIP/100)
"""

import json
import os
from pathlib import Path

from fastagi import App, RecordingMetadata, RecordingSink

LIST = Path(os.environ.get("RECORDINGS_LIST", "recordings.jsonl"))


class ListSink(RecordingSink):
    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        line = json.dumps({"id": metadata.extra["recording_id"], "file": metadata.file_path})
        # a slow disk may take its time: a sink runs on a thread of its own, and holds no call and no other sink
        with LIST.open("a") as file:
            file.write(line + "\n")


app = App()
# under a name: what it missed while the server was down is delivered after a restart. Without `default` it gets only
# recordings that ask for it: call.record_start(sink="list"), or sink=list in the dialplan
app.sink("list", ListSink(), default=True)
