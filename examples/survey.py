"""A survey: ask, record the answer until the caller is silent for two seconds, and say what became of it.

fastagi serve --app examples.survey:app
exten => 100,1,AGI(agi://127.0.0.1:4573/survey)
"""

from fastagi import App, CallChannel, Cause

app = App()


@app.route("survey")
async def survey(call: CallChannel) -> None:
    await call.answer()
    await call.stream_file("beep")
    cause = await call.WholeCallRecorder.record(
        "surveys/{date:%Y/%m/%d}/{uniqueid}", seconds_timeout=60, milliseconds_max_silence=2000
    )
    await call.set_variable("SURVEY", "answered" if cause == Cause.SILENCE else cause)
