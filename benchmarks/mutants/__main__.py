"""Change single points of the code and see whether the unit tests of its package notice: `make mutants`.

Sixty points of each package, chosen with a fixed seed. A change survives when no test of the package fails, also when
no test runs the line. Changes that no test can notice are named in `equivalent.txt`, each with its reason; they are not
counted. Ends with 1 where more than 10 % survive.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.mutants.points import Point, kinds, point
from benchmarks.mutants.trial import JOBS, KILLED, LINES, POINT, RESULTS, ROOT, SLOW, SURVIVED

PACKAGES = {
    "domain": ["domain"],
    "agi": ["agi"],
    "ami": ["ami"],
    "delivery": ["delivery"],
    "recording": ["recording/lifecycle", "recording/ledger", "recording/service.py", "recording/tracking.py"],
}
SEED = 20
EACH = 60
MOST_SURVIVORS = 0.10
MOST_FAILED = 3
"""Tests of a package that measure time, and fail while the lines they run are noted."""

EQUIVALENT = Path(__file__).with_name("equivalent.txt")
UNCOVERED = "survived: no test runs it"


def modules(package: str) -> list[Path]:
    """Return the modules of a package that are changed."""
    places = [ROOT / "fastagi" / place for place in PACKAGES[package]]
    return sorted(file for place in places for file in ([place] if place.is_file() else place.rglob("*.py")))


def sample(package: str, each: int, seed: int, but: set[str]) -> list[Point]:
    """Return the points to change: each kind of change as often as any other, as far as there are so many.

    :param but: names of changes that are passed over
    """
    numbered = [(kind, file, number) for file in modules(package) for number, kind in enumerate(kinds(file))]
    random.Random(f"{seed} {package}").shuffle(numbered)
    turns: Counter[str] = Counter()
    ranked = []
    for kind, file, number in numbered:
        ranked.append((turns[kind], len(ranked), file, number))
        turns[kind] += 1
    found: list[Point] = []
    for _, _, file, number in sorted(ranked):
        if len(found) == each:
            break
        candidate = point(file, ROOT, number)
        if candidate.name not in but:
            found.append(candidate)
    return found


def equivalent() -> set[str]:
    """Return the names of the changes that no test can notice. A line that begins with a space is a reason."""
    lines = EQUIVALENT.read_text().splitlines() if EQUIVALENT.exists() else []
    return {line for line in lines if line and not line.startswith((" ", "#"))}


def run(package: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the unit tests of a package with the plugin."""
    return pytest(["-m", "not slow", f"tests/unit/{package}"], 1800, **variables)


def pytest(arguments: list[str], seconds: float, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "benchmarks.mutants.trial", "-p", "no:cacheprovider", "-p", "no:xdist",
         "-p", "no:rerunfailures", "-o", "addopts=-q", *arguments],
        cwd=ROOT, env={**os.environ, **variables}, timeout=seconds, capture_output=True, text=True, check=False,
    )  # fmt: skip


def tests_of(found: Point, known: dict[str, Any]) -> list[str]:
    """Return the tests that run the changed lines, quickest first; all of the package where they run on import."""
    lines = known["lines"].get(found.file, {})
    tests = {test for line in range(found.lines[0], found.lines[1] + 1) for test in lines.get(str(line), [])}
    if not found.function or (not tests and any(str(n) in lines for n in range(found.lines[0], found.lines[1] + 1))):
        tests = {test for of_line in lines.values() for test in of_line}
    return sorted(tests, key=lambda test: known["seconds"].get(test, 0.0))


def outcomes(package: str, points: list[Point], known: dict[str, Any], folder: Path) -> Iterator[tuple[Point, str]]:
    """Try each change."""
    tests = {found: tests_of(found, known) for found in points}
    jobs = [
        {
            "file": found.file,
            "number": found.number,
            "function": found.function,
            "tests": tests[found],
            "seconds": limit(tests[found], known),
        }
        for found in points
        if tests[found] and found.function
    ]
    (folder / "jobs").write_text(json.dumps(jobs))
    shown = run(package, **{JOBS: str(folder / "jobs"), RESULTS: str(folder / "results")})
    results = json.loads((folder / "results").read_text()) if jobs else []
    if len(results) != len(jobs):
        raise SystemExit(shown.stdout + shown.stderr)
    forked = dict(zip([(job["file"], job["number"]) for job in jobs], results, strict=True))
    for found in points:
        if not tests[found]:
            yield found, UNCOVERED
        else:
            outcome = forked.get((found.file, found.number))
            yield found, outcome or alone(found, tests[found], known)


def limit(tests: list[str], known: dict[str, Any]) -> float:
    """Return the seconds after which a change has made the tests hang."""
    return 10 + 3 * sum(known["seconds"].get(test, 0.0) for test in tests)


def alone(found: Point, tests: list[str], known: dict[str, Any]) -> str:
    """Try a change in a process of its own."""
    near = {test for of_line in known["lines"].get(found.file, {}).values() for test in of_line}
    leave_out = [f"--deselect={test}" for test in known["failed"]]
    files = dict.fromkeys(test.partition("::")[0] for test in sorted(tests, key=lambda test: test not in near))
    try:
        arguments = ["-x", "-m", "not slow", *leave_out, *files]
        done = pytest(arguments, 30 + limit(tests, known), **{POINT: f"{found.file}:{found.number}"})
    except subprocess.TimeoutExpired:
        return SLOW
    return SURVIVED if done.returncode == 0 else KILLED


def main() -> int:
    """Run the campaign and print what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", choices=[[], *PACKAGES], help="all where none is named")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--each", type=int, default=EACH, help="changes in each package")
    parser.add_argument("--all", action="store_true", help="print what was killed, too")
    asked = parser.parse_args()
    but, survived, total = equivalent(), 0, 0
    for package in asked.packages or PACKAGES:
        began, alive = time.monotonic(), 0
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            shown = run(package, **{LINES: str(folder / "lines")})
            if not (folder / "lines").exists():
                raise SystemExit(shown.stdout + shown.stderr)
            known = json.loads((folder / "lines").read_text())
            if len(known["failed"]) > MOST_FAILED:
                raise SystemExit(f"the tests of {package} fail without a change:\n{shown.stdout}")
            points = sample(package, asked.each, asked.seed, but)
            for found, outcome in outcomes(package, points, known, folder):
                alive += outcome.startswith(SURVIVED)
                if asked.all or outcome.startswith(SURVIVED):
                    print(f"{outcome}  line {found.line}  {found.kind}\n{found.name}", flush=True)
        total += len(points)
        survived += alive
        seconds = time.monotonic() - began
        print(f"== {package}: {alive} of {len(points)} changes survived ({seconds:.0f} s)", flush=True)
    print(f"== {survived} of {total} survived, {100 * survived / max(1, total):.1f} %; {MOST_SURVIVORS:.0%} may")
    return int(survived > MOST_SURVIVORS * total)


if __name__ == "__main__":
    sys.exit(main())
