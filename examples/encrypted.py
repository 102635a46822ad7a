"""Recordings that only the holder of a private key can listen to: this server has the public half alone.

age-keygen -o private.txt                       # on a machine of the auditors'
AGE_RECIPIENT=age1... fastagi serve --app examples.encrypted:app
age --decrypt -i private.txt recording.wav      # there again
"""

import os

from fastagi import AgeCipher, App, CallChannel

app = App()


@app.route("confidential")
async def confidential(call: CallChannel) -> None:
    await call.answer()
    await call.WholeCallRecorder.start("confidential/{uniqueid}", cipher=AgeCipher([os.environ["AGE_RECIPIENT"]]))
    await call.exec("Echo")  # the recording ends, is encrypted and delivered when the caller hangs up
