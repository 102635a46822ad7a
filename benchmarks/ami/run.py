"""What an AMI event costs us and panoramisk, side by side: CPU per event, in rounds, medians.

    python benchmarks/ami/run.py [--events 60000] [--rounds 5] [--pump PATH] [--json]

The client has one core and the pump another where there are two. Every kind runs once in each round, so that what else
the machine does falls on all of them; compare the ratios, not the microseconds. `--pump` takes another program with the
arguments PORT COUNT. Exit code 1 when unwanted events cost more than a tenth of panoramisk's.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TARGET = 0.1

CASES = (
    ("panoramisk, one name wanted", ["panoramisk", "one"], []),
    ("ours, one name wanted", ["ours", "one"], []),
    ("ours, one name wanted, filtered at the source", ["ours", "one"], ["--filters"]),
    ("panoramisk, all wanted", ["panoramisk", "all"], []),
    ("ours, all wanted, panoramisk's Messages", ["ours-messages", "all"], []),
    ("ours, all wanted, AmiEvents", ["ours", "all"], []),
)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def pinned(core: int, argv: list[str]) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return argv
    code = f"import os,sys; os.sched_setaffinity(0, {{{cores[core]}}}); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", code, *argv]


def measure(client: list[str], pump: list[str], events: int, loop: list[str]) -> float:
    port = free_port()
    server = subprocess.Popen(pinned(1, [sys.executable, *pump[:1], str(port), str(events), *pump[1:]]))
    try:
        deadline = time.monotonic() + 20
        while server.poll() is None and time.monotonic() < deadline and not listens(port):
            time.sleep(0.05)
        argv = pinned(0, [sys.executable, str(HERE / "client.py"), *client, str(port), str(events), *loop])
        done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=600)
        cost: float = json.loads(done.stdout.splitlines()[-1])["cpu_us_per_event"]
        return cost
    finally:
        server.terminate()
        server.wait()


def listens(port: int) -> bool:
    """Without connecting: the pump serves one connection."""
    wanted = f":{port:04X} "
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(wanted in row.split(":", 1)[1] and row.split()[3] == "0A" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pump", default=str(HERE / "pump.py"))
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    loop = ["--uvloop"] if options.uvloop else []
    own = options.pump == str(HERE / "pump.py")
    cases = [c for c in CASES if own or not c[2]]
    costs: dict[str, list[float]] = {name: [] for name, _, _ in cases}
    for _ in range(options.rounds):
        for name, client, extra in cases:
            costs[name].append(measure(client, [options.pump, *extra], options.events, loop))
    medians = {name: statistics.median(values) for name, values in costs.items()}
    unwanted = medians["ours, one name wanted"] / medians["panoramisk, one name wanted"]
    if options.json:
        print(json.dumps({"cpu_us_per_event": medians, "unwanted_ratio": round(unwanted, 4), "rounds": costs}))
    else:
        for name, cost in medians.items():
            base = medians["panoramisk, all wanted" if "all" in name else "panoramisk, one name wanted"]
            print(f"{name:48} {cost:8.2f} us CPU/event   {cost / base:6.3f} of panoramisk")
        verdict = "within" if unwanted <= TARGET else "OVER"
        print(f"unwanted events: {unwanted:.3f} of panoramisk's cost, {verdict} the target of {TARGET}")
    return 0 if unwanted <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
