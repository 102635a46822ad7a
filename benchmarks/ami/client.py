"""One manager client that reads COUNT events and says what CPU it took.

    python client.py KIND WANT PORT COUNT [--uvloop]      prints {"cpu_us_per_event": ...}

KIND: ours, ours-messages (panoramisk's callbacks over our connection), panoramisk. WANT: one (MixMonitorStop) or all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import resource
import time
from typing import Any


def cpu() -> float:
    return time.process_time()


class Count:
    """Ends when the last MixMonitorStop has been seen."""

    def __init__(self, stops: int) -> None:
        self.left = stops
        self.seen = 0
        self.done = asyncio.Event()

    def see(self, name: str) -> None:
        self.seen += 1
        if name == "MixMonitorStop":
            self.left -= 1
            if not self.left:
                self.done.set()


async def ours(port: int, want: str, count: Count, messages: bool) -> tuple[float, Any]:
    from fastagi.ami import Manager

    ami = Manager(port=port, username="bench", secret="bench")
    names = ("*",) if want == "all" else ("MixMonitorStop",)
    if messages:
        for name in names:
            ami.register_event(name, lambda m, event: count.see(event.event))
    else:

        def receive(event: Any) -> None:
            event.uniqueid  # noqa: B018 - what a recorder looks at first
            count.see(event.name)

        ami.subscribe(receive, *names)
    await ami.start()
    await ami.wait_up(20)
    return cpu(), ami


async def panoramisk(port: int, want: str, count: Count) -> tuple[float, Any]:
    from panoramisk import Manager

    logging.disable(logging.CRITICAL)
    ami = Manager(host="127.0.0.1", port=port, username="bench", secret="bench")
    ami.register_event("*" if want == "all" else "MixMonitorStop", lambda m, event: count.see(event.event))
    await ami.connect()
    while not ami.authenticated:  # noqa: ASYNC110 - panoramisk has nothing to wait for
        await asyncio.sleep(0.001)
    return cpu(), ami


async def run(options: argparse.Namespace) -> None:
    count = Count(-(-options.count // 20))
    if options.kind == "panoramisk":
        begin, ami = await panoramisk(options.port, options.want, count)
    else:
        begin, ami = await ours(options.port, options.want, count, options.kind == "ours-messages")
    async with asyncio.timeout(300):
        await count.done.wait()
    spent = cpu() - begin
    ami.close()
    events = -(-options.count // 20) * 20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"cpu_us_per_event": round(spent / events * 1e6, 3), "given": count.seen, "peak_kb": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["ours", "ours-messages", "panoramisk"])
    parser.add_argument("want", choices=["one", "all"])
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    if options.uvloop:
        import uvloop

        uvloop.run(run(options))
    else:
        asyncio.run(run(options))


if __name__ == "__main__":
    main()
