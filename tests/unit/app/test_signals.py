"""A signal ends all apps that are served in one event loop."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from fastagi.app.signals import ended_by_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal_is_not_handled(number: signal.Signals) -> None:
    """The first signal ends all apps; the handler is gone for the second."""
    loop = asyncio.get_running_loop()
    one, two, late = (loop.create_future() for _ in range(3))
    with ended_by_signals(one), ended_by_signals(two):
        with ended_by_signals(late):
            pass
        os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            assert (await one, await two) == ("", "")
        os.kill(os.getpid(), number)  # nobody minds
        await asyncio.sleep(0.05)
    assert not late.done()
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


async def test_other_threads_get_no_signal() -> None:
    async def served() -> bool:
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        with ended_by_signals(ended):
            await asyncio.sleep(0)
        return ended.done()

    assert await asyncio.to_thread(asyncio.run, served()) is False
