"""A plain function instead of a coroutine: it runs in a thread of its own, and every call in it blocks.

`channel.agi` is pyst2's AGI on the same session, so that a script written for it moves in as it is.

    fastagi serve --app examples.blocking_script:app
    exten => 101,1,AGI(agi://127.0.0.1:4573/legacy)
"""

from fastagi import App, BlockingChannel

app = App()


@app.route("legacy")
def legacy(channel: BlockingChannel) -> None:
    channel.answer()
    if channel.WholeCallRecorder.start(filename="legacy/{uniqueid}", file_format="s16bit"):
        channel.agi.say_digits("42")
        channel.agi.set_variable("DIGITS_SAID", "42")
        channel.WholeCallRecorder.stop()
