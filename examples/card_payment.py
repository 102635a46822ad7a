"""A card number must not be in the recording: pause while it is keyed in, and resume even if the caller dawdles.

fastagi serve --app examples.card_payment:app
exten => 102,1,AGI(agi://127.0.0.1:4573/pay)
"""

from fastagi import App, CallChannel

app = App()


@app.route("pay")
async def pay(call: CallChannel) -> None:
    await call.answer()
    recorder = call.WholeCallRecorder
    await recorder.start("payments/{uniqueid}", pause_mode="cut")
    await call.stream_file("beep")

    await recorder.pause(seconds=120)  # two minutes are enough; then it records again, whatever happens here
    await call.get_data("beep", timeout_ms=5000, max_digits=16)
    await recorder.resume()

    await call.stream_file("beep")
    await recorder.stop()
