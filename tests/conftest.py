"""Fixtures that every kind of test may use. What only one package's tests need lives beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port as choose_port
from support.run_order import may_run_twice, rank


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for several workers, and mark the tests that get a second run: `support.run_order`."""
    items.sort(key=lambda item: rank(item.path))
    for item in items:
        if may_run_twice(item.path):
            item.add_marker(pytest.mark.flaky(reruns=1))


def _shared_server(version: int) -> Iterator[AsteriskServer]:
    """Started and stopped in loops of their own, in a thread: the tests' loops come and go, and it is bound to none."""
    server = AsteriskServer(version)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, server.start()).result()
        try:
            yield server
        finally:
            thread.submit(asyncio.run, server.close()).result()


@pytest.fixture(scope="session")
def asterisk22() -> Iterator[AsteriskServer]:
    """One Asterisk 22 for all tests that leave it as they found it; others start their own (half a second)."""
    yield from _shared_server(22)


@pytest.fixture(scope="session")
def asterisk16() -> Iterator[AsteriskServer]:
    """One Asterisk 16, on the same terms."""
    yield from _shared_server(16)


@pytest.fixture(params=[22, 16], ids=["asterisk22", "asterisk16"])
def asterisk(request: pytest.FixtureRequest) -> AsteriskServer:
    """The test runs on both."""
    server: AsteriskServer = request.getfixturevalue(f"asterisk{request.param}")
    return server


@pytest.fixture
def free_port() -> int:
    """A port that nobody uses now."""
    return choose_port()
