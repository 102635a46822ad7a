"""Asterisks with the far ends of `support.call_harness`, shared by the tests of the whole recorder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastagi.testing import AsteriskServer
from support.call_harness import DIALPLAN, EXTRA_FILES, SHIPPED, lay_sounds, whole_scene
from support.recorder_harness import Scene


def _with_far_ends(version: int) -> Iterator[AsteriskServer]:
    """Started and stopped in loops of their own: the tests' loops come and go."""
    server = AsteriskServer(version, dialplan=[SHIPPED, DIALPLAN], extra_files=EXTRA_FILES)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, server.start()).result()
        try:
            lay_sounds(server)
            yield server
        finally:
            thread.submit(asyncio.run, server.close()).result()


@pytest.fixture(scope="session")
def whole22() -> Iterator[AsteriskServer]:
    yield from _with_far_ends(22)


@pytest.fixture(scope="session")
def whole16() -> Iterator[AsteriskServer]:
    yield from _with_far_ends(16)


@pytest.fixture(params=[22, 16], ids=["asterisk22", "asterisk16"])
def whole_pbx(request: pytest.FixtureRequest) -> AsteriskServer:
    """The test runs on both."""
    server: AsteriskServer = request.getfixturevalue(f"whole{request.param}")
    return server


@pytest.fixture
async def scene(whole_pbx: AsteriskServer, tmp_path: Path) -> AsyncIterator[Scene]:
    """A whole recorder on it."""
    async with whole_scene(whole_pbx, tmp_path) as scene:
        yield scene


@pytest.fixture
async def scene22(whole22: AsteriskServer, tmp_path: Path) -> AsyncIterator[Scene]:
    """The same, where one Asterisk tells enough: what is tested is not Asterisk's doing."""
    async with whole_scene(whole22, tmp_path) as scene:
        yield scene
