"""Faults under load, and how much there may be of it. Everything on real Asterisks and a real server process.

    python -m benchmarks.soak kills [--kills 200] [--calls 50] [--seed 1] [--asterisk 22]
    python -m benchmarks.soak calls [--most 1000] [--step 50] [--asterisk 22]
    python -m benchmarks.soak recovery [--recordings 1000] [--seconds 10]
    python -m benchmarks.soak step [--minutes 10] [--asterisk 22]
    python -m benchmarks.soak commands [--for 300] [--calls 50] [--seed 1] [--asterisk 22]
    python -m benchmarks.soak pair [--kills 40] [--calls 20] [--seed 1] [--asterisk 22]
    python -m benchmarks.soak            all six

`kills`: the server is killed (SIGKILL) at random moments, its starts included, while so many calls are up at any time;
each call is accounted for afterwards: recording, length, cause, delivery. `calls`: more and more recorded calls at once
until Asterisk or the machine gives up; none of those that were recorded may be lost. `recovery`: so many recordings
that were cut off (ledger says active, headers without sizes, no call up) until the last one is finished and delivered.
`step`: a call of so many minutes on Asterisk 22 and one on 16 (or on the one named), with a marker in each leg and gaps
in either: how far the sides of `separate` are out of step; more than a frame (20 ms) is too much, for MixMonitor.
`commands`: for so many seconds recorded calls are paused, muted, stopped, started, redirected, parked and hung up in
random order, by several at once, while the server is killed or ended and its manager connection cut.
`pair`: two servers on one PostgreSQL and one spool are killed and ended in turns under calls; some stay away until the
other has taken over.
Exit code 1 when anything was lost, or out of step.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from benchmarks.soak.calls import calls
from benchmarks.soak.commands import commands
from benchmarks.soak.kills import kills
from benchmarks.soak.pair import pair
from benchmarks.soak.recovery import recovery
from benchmarks.soak.step import both_steps


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parts = ["kills", "calls", "recovery", "step", "commands", "pair"]
    parser.add_argument("what", nargs="*", choices=[*parts, []], help="which; all when none")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--calls", type=int, default=50, help="calls that are up at any time while it is killed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--asterisk", type=int, choices=[22, 16], help="whose calls they are; 22, and both for step")
    parser.add_argument("--most", type=int, default=1000, help="calls at once to go up to")
    parser.add_argument("--step", type=int, default=50)
    parser.add_argument("--recordings", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0, help="audio of each interrupted recording")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the call whose sides are compared")
    parser.add_argument("--for", type=float, default=300.0, dest="lasting", help="seconds of random commands")
    chosen = parser.parse_args()
    version = chosen.asterisk or 22
    what = chosen.what or parts
    lost = False
    for name in what:
        folder = tempfile.mkdtemp(prefix=f"fastagi-soak-{name}-")
        Path(folder).chmod(0o755)
        run = {
            "kills": lambda f: kills(f, chosen.kills, chosen.calls, chosen.seed, version),
            "calls": lambda f: calls(f, chosen.most, chosen.step, version),
            "recovery": lambda f: recovery(f, chosen.recordings, chosen.seconds),
            "step": lambda f: both_steps(f, chosen.minutes, (chosen.asterisk,) if chosen.asterisk else (22, 16)),
            "commands": lambda f: commands(f, chosen.lasting, chosen.calls, chosen.seed, version),
            "pair": lambda f: pair(f, chosen.kills, chosen.calls, chosen.seed, version),
        }[name]
        try:
            figures = asyncio.run(run(Path(folder)))
        except AssertionError as exc:
            lost = True
            print(f"{name}: LOST: {exc}\n  ledger, log and files are in {folder}", flush=True)
        else:
            print(f"{name}: {json.dumps(figures)}", flush=True)
            shutil.rmtree(folder)
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
