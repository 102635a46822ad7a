"""A pytest plugin that tries changes on the tests of one package: `-p benchmarks.mutants.trial`.

Without `MUTANTS_JOBS` it runs the tests as they are, and notes which lines each of them runs. With it, it runs none by
itself: for each change it forks, puts the changed function in place of the one that was imported, and runs the tests
that run those lines until one fails. A change outside of functions is made while its module is imported, in a process
of its own (`MUTANTS_POINT`).
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import coverage
import hypothesis
import pytest

from benchmarks.mutants.points import changed

ROOT = Path(__file__).resolve().parents[2]
LINES, JOBS, POINT, RESULTS = "MUTANTS_LINES", "MUTANTS_JOBS", "MUTANTS_POINT", "MUTANTS_RESULTS"

KILLED, SURVIVED, SLOW = "killed", "survived", "killed: too slow"

hypothesis.settings.register_profile("mutants", derandomize=True, database=None, deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("mutants")
    if LINES in os.environ:
        config.pluginmanager.register(_Lines(Path(os.environ[LINES])))
    elif JOBS in os.environ:
        config.pluginmanager.register(_Trials(Path(os.environ[JOBS]), Path(os.environ[RESULTS])))


class _Lines:
    """Notes for each line of fastagi which tests run it, and how long each test takes. A test that fails while it is
    looked at (it measures time) is not used."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._seconds: dict[str, float] = defaultdict(float)
        self._failed: set[str] = set()
        self._coverage = coverage.Coverage(data_file=None, config_file=False, source=[str(ROOT / "fastagi")])
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        result = yield
        self._coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {
            str(Path(file).relative_to(ROOT)): {
                str(line): [test for test in tests if test and test not in self._failed]
                for line, tests in data.contexts_by_lineno(file).items()
            }
            for file in data.measured_files()
        }
        self._target.write_text(json.dumps({"lines": lines, "seconds": self._seconds, "failed": sorted(self._failed)}))


class _Trials:
    """Tries changes inside of functions, each in a fork.

    :param jobs: JSON, a list of {file, number, function, tests, seconds}
    :param results: gets the list of outcomes, None for a change that needs a process of its own
    """

    def __init__(self, jobs: Path, results: Path) -> None:
        self._jobs = json.loads(jobs.read_text())
        self._results = results

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        outcomes = []
        for job in self._jobs:
            tests = [items[name] for name in job["tests"] if name in items]
            outcomes.append(_forked(job, tests))
            self._results.write_text(json.dumps(outcomes))
        return True


def _forked(job: dict[str, Any], tests: Sequence[pytest.Item]) -> str | None:
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setpgid(0, 0)
            code = _try(job, tests)
        finally:
            os._exit(code)
    deadline = time.monotonic() + job["seconds"]
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return {0: SURVIVED, 1: KILLED}.get(os.waitstatus_to_exitcode(status), None if status >> 8 == 2 else KILLED)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return SLOW


def _try(job: dict[str, Any], tests: Sequence[pytest.Item]) -> int:
    """In the fork. 0: all tests passed; 1: one failed; 2: the function could not be replaced."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    if not replace_function(ROOT / job["file"], job["number"], job["function"]):
        return 2
    for position, item in enumerate(tests):
        following = tests[position + 1] if position + 1 < len(tests) else None
        reports = []

        class Reports:
            def pytest_runtest_logreport(self, report: pytest.TestReport, reports: list[Any] = reports) -> None:
                reports.append(report)

        plugin = Reports()
        item.config.pluginmanager.register(plugin)
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        item.config.pluginmanager.unregister(plugin)
        if any(report.failed for report in reports):
            return 1
    return 0


def replace_function(file: Path, number: int, function: str) -> bool:
    """Put the changed function in place of the imported one. False: it cannot be, or is not imported."""
    source = file.read_text()
    whole = compile(changed(source, number), str(file), "exec", dont_inherit=True)
    new = {(code.co_qualname, code.co_firstlineno): code for code in _codes(whole) if code.co_qualname == function}
    replaced = False
    for live in [o for o in gc.get_objects() if isinstance(o, FunctionType) and o.__code__.co_filename == str(file)]:
        code = new.get((live.__code__.co_qualname, live.__code__.co_firstlineno))
        if code is not None:
            if code.co_freevars != live.__code__.co_freevars:
                return False
            live.__code__ = code
            replaced = True
    return replaced


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


class _ChangedModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with one point changed."""

    def __init__(self, file: Path, number: int) -> None:
        self._file = file
        self._number = number
        parts = file.relative_to(ROOT).with_suffix("").parts
        self._name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(
            fullname,
            self._file,
            loader=self,
            submodule_search_locations=[str(self._file.parent)] if self._file.name == "__init__.py" else None,
        )

    def exec_module(self, module: ModuleType) -> None:
        tree: ast.Module = changed(self._file.read_text(), self._number)
        exec(compile(tree, str(self._file), "exec", dont_inherit=True), module.__dict__)


if POINT in os.environ:
    _file, _, _number = os.environ[POINT].rpartition(":")
    sys.meta_path.insert(0, _ChangedModule(ROOT / _file, int(_number)))
