"""FastAGI against its floor and its peer: `python -m benchmarks.agi [--rounds N] [--sessions N] [--json] [--check]`.

Servers on core 0, load on core 1, rounds interleaved, medians. Only the ratios mean anything on a machine that does
other things: fastagi / floor is to stay at or under 1.3 from 1 to 5,000 sessions at once, and an idle session under
10 kB. What the floor itself costs more at 5,000 is the kernel's. `--check` exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.agi import load

NAMES = ("floor", "fastagi", "panoramisk")
AT_ONCE = 100
SPREAD = (1, 10, 100, 1000, 5000)

RATIO_TARGET = 1.3
IDLE_TARGET = 10_000
FLAT_TARGET = 1.5
"""fastagi / floor at each number of sessions at once: fewer rounds than the main figure, so more noise is let pass."""


class Server:
    """One of `benchmarks.agi.servers` as a process of its own."""

    def __init__(self, name: str, loop: str, cores: list[int]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.agi.servers", name, loop], stdout=subprocess.PIPE, text=True
        )
        os.sched_setaffinity(self.process.pid, {cores[0]})
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.pid = self.process.pid

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def measure(rounds: int, sessions: int, loop: str) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    servers = {name: Server(name, loop, cores) for name in NAMES}
    try:
        for server in servers.values():
            load.run(server.port, server.pid, at_once=50, sessions=500)
        seen: dict[str, list[load.Outcome]] = {name: [] for name in NAMES}
        for _ in range(rounds):
            for name, server in servers.items():
                seen[name].append(load.run(server.port, server.pid, at_once=AT_ONCE, sessions=sessions))
        spread: dict[str, dict[int, list[float]]] = {n: {count: [] for count in SPREAD} for n in ("floor", "fastagi")}
        failed = sum(outcome.failed for outcomes in seen.values() for outcome in outcomes)
        for _ in range(max(3, rounds // 2)):
            for count, (name, kept) in itertools.product(SPREAD, spread.items()):
                server = servers[name]
                outcome = load.run(server.port, server.pid, at_once=count, sessions=max(sessions, count * 2))
                kept[count].append(outcome.cpu_us)
                failed += outcome.failed
        idle = {}
        for name in NAMES:
            servers[name].close()
            servers[name] = Server(name, loop, cores)
            load.run(servers[name].port, servers[name].pid, at_once=50, sessions=500)
            idle[name] = load.idle_bytes(servers[name].port, servers[name].pid, 3000)
    finally:
        for server in servers.values():
            server.close()
    middle = {name: statistics.median(o.cpu_us for o in outcomes) for name, outcomes in seen.items()}
    flat = {n: {count: statistics.median(v) for count, v in kept.items()} for n, kept in spread.items()}
    return {
        "loop": loop,
        "failed_sessions": failed,
        "cpu_us_per_session": middle,
        "p50_ms": {name: statistics.median(o.p50_ms for o in outcomes) for name, outcomes in seen.items()},
        "p99_ms": {name: statistics.median(o.p99_ms for o in outcomes) for name, outcomes in seen.items()},
        "idle_bytes_per_session": idle,
        "cpu_us_by_sessions_at_once": flat,
        "fastagi_over_floor": middle["fastagi"] / middle["floor"],
        "panoramisk_over_floor": middle["panoramisk"] / middle["floor"],
        "fastagi_over_panoramisk": middle["fastagi"] / middle["panoramisk"],
        "fastagi_over_floor_by_sessions_at_once": {n: flat["fastagi"][n] / flat["floor"][n] for n in SPREAD},
    }


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['loop']}: a session of five commands, {AT_ONCE} at once; {result['failed_sessions']} failed")
    print(f"  {'':12}{'CPU us':>8}{'p50 ms':>9}{'p99 ms':>9}{'idle kB':>9}")
    for name in NAMES:
        row = [result[key][name] for key in ("cpu_us_per_session", "p50_ms", "p99_ms")]
        print(f"  {name:12}{row[0]:8.0f}{row[1]:9.1f}{row[2]:9.1f}{result['idle_bytes_per_session'][name] / 1000:9.1f}")
    print(f"  fastagi / floor       {result['fastagi_over_floor']:.2f}  (at most {RATIO_TARGET})")
    print(f"  panoramisk / floor    {result['panoramisk_over_floor']:.2f}")
    print(f"  fastagi / panoramisk  {result['fastagi_over_panoramisk']:.2f}")
    flat = result["cpu_us_by_sessions_at_once"]
    print("  at once     " + "".join(f"{count:>8}" for count in SPREAD))
    for name in flat:
        print(f"  {name:12}" + "".join(f"{flat[name][count]:8.0f}" for count in SPREAD))
    ratios = result["fastagi_over_floor_by_sessions_at_once"]
    print("  ratio       " + "".join(f"{ratios[count]:8.2f}" for count in SPREAD))


def missed(result: dict[str, Any]) -> list[str]:
    found = []
    if result["fastagi_over_floor"] > RATIO_TARGET:
        found.append(f"{result['loop']}: fastagi / floor is {result['fastagi_over_floor']:.2f}")
    if result["idle_bytes_per_session"]["fastagi"] > IDLE_TARGET:
        found.append(f"{result['loop']}: an idle session takes {result['idle_bytes_per_session']['fastagi']:.0f} bytes")
    for count, ratio in result["fastagi_over_floor_by_sessions_at_once"].items():
        if ratio > FLAT_TARGET:
            found.append(f"{result['loop']}: fastagi / floor is {ratio:.2f} at {count} at once")
    if result["failed_sessions"]:
        found.append(f"{result['loop']}: {result['failed_sessions']} sessions failed")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.agi", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sessions", type=int, default=4000)
    parser.add_argument("--loops", nargs="+", default=["uvloop"], choices=["uvloop", "asyncio"])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000) if hard > 0 else 20_000, hard))
    started = time.monotonic()
    results = [measure(options.rounds, options.sessions, loop) for loop in options.loops]
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        for result in results:
            show(result)
        print(f"\n{time.monotonic() - started:.0f} s")
    failures = [line for result in results for line in missed(result)]
    for line in failures:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if options.check and failures else 0


if __name__ == "__main__":
    sys.exit(main())
