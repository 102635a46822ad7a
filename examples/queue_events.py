"""AMI beside AGI: count who waits in a queue, with the callbacks that panoramisk users have.

fastagi serve --config fastagi.toml --app examples.queue_events:app
"""

from collections import Counter
from typing import Any

from fastagi import App, CallChannel

app = App()
waiting: Counter[str] = Counter()


@app.route("queue-length")
async def queue_length(call: CallChannel) -> None:
    await call.set_variable("WAITING", str(waiting[call.params.get("queue", "")]))


@app.ami().register_event("QueueCaller*")
async def joined_or_left(manager: Any, event: Any) -> None:
    if event.event in ("QueueCallerJoin", "QueueCallerLeave"):
        waiting[event.Queue] = int(event.Count)
