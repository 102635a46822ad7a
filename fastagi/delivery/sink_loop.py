"""A thread with an event loop of its own, so that a sink that blocks holds only itself.

Started at the first call. A thread cannot be killed: one that is stuck is named in the log and left, and dies with the
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import selectors
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from fastagi.errors import SinkError

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5
"""Seconds between checks whether the loop turns, while a call runs on it."""

HELD_LOOKS = 3
"""Failed checks in a row after which a loop counts as held; a single one may be this machine's load."""

CANCEL_SECONDS = 1.0
"""Seconds that a cancelled call may clean up before it is left to end by itself."""

STOP_SECONDS = 2.0
"""Seconds that a stopped loop has to end before its thread is left."""

_NOT_THE_SINK = (str(Path(asyncio.__file__).parent), str(Path(__file__).parent), threading.__file__, selectors.__file__)


class SinkLoop:
    """Runs the calls of one sink. Used from the main event loop only.

    :param name: of the sink, for log and thread
    :param on_held: called on the main loop, once for each time that the loop is found held
    """

    def __init__(self, name: str, on_held: Callable[[], None]) -> None:
        self.name = name
        self._on_held = on_held
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None
        self._asked_at: float | None = None
        self._looks = 0

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Await an async function on the sink's loop, in this task's context, and return its result.

        Cancelling cancels the function there, and waits at most `CANCEL_SECONDS` for it.

        :raises SinkError: it raised no `Exception` (see `calling.call`)
        :raises Exception: the exception that it raised
        """
        main, own = asyncio.get_running_loop(), self._started()
        call = _Call(main, own, contextvars.copy_context(), function, args)
        self._running += 1
        call.done.add_done_callback(self._call_ended)
        own.call_soon_threadsafe(call.begin)
        self._look_later(main)
        try:
            return await asyncio.shield(call.done)
        except asyncio.CancelledError:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the call with it
                own.call_soon_threadsafe(call.cancel)
            await asyncio.wait({call.done}, timeout=CANCEL_SECONDS)
            raise

    async def stop(self) -> None:
        """Cancel the running calls and end the thread. Takes `STOP_SECONDS` at most. Idempotent."""
        thread, ended, own = self._thread, self._ended, self._loop
        self._thread = self._loop = self._ended = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if thread is None or ended is None or own is None:
            return
        with contextlib.suppress(RuntimeError):
            own.call_soon_threadsafe(own.stop)
        await asyncio.wait({ended}, timeout=STOP_SECONDS)
        if not ended.done():
            log.error("sink_left_behind", sink=self.name, at=_where(thread), hint="its thread ends with the process")

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            return self._loop
        main = asyncio.get_running_loop()
        own = self._loop = asyncio.new_event_loop()
        ended = self._ended = main.create_future()
        self._thread = threading.Thread(
            target=self._serve, args=(own, main, ended), name=f"fastagi-sink-{self.name[:40]}", daemon=True
        )
        self._thread.start()
        return own

    def _serve(
        self, own: asyncio.AbstractEventLoop, main: asyncio.AbstractEventLoop, ended: asyncio.Future[None]
    ) -> None:
        """Run the loop. The function of the thread."""
        asyncio.set_event_loop(own)
        try:
            while not _turned_until_stopped(own, self.name):
                pass
            with contextlib.suppress(Exception, SystemExit, KeyboardInterrupt):
                left = asyncio.all_tasks(own)
                for task in left:
                    task.cancel()
                if left:
                    own.run_until_complete(asyncio.wait(left, timeout=CANCEL_SECONDS))
                own.run_until_complete(own.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            own.close()
            with contextlib.suppress(RuntimeError):  # the main loop is closed: nothing waits
                main.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(None))

    # -- checks for a held loop

    def _call_ended(self, done: asyncio.Future[Any]) -> None:
        self._running -= 1
        if not done.cancelled():
            done.exception()  # the caller, if there still is one, gets the error

    def _look_later(self, main: asyncio.AbstractEventLoop) -> None:
        if self._timer is None:
            self._timer = main.call_later(LOOK_SECONDS, self._look, main)

    def _look(self, main: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        own, thread = self._loop, self._thread
        if own is None or thread is None or not thread.is_alive():
            return
        if self._asked_at is None:
            self._asked_at, self._looks = time.monotonic(), 0
            own.call_soon_threadsafe(self._turned)
        else:
            self._looks += 1
            if self._looks == HELD_LOOKS:
                self._held(thread, time.monotonic() - self._asked_at)
        if self._running:
            self._look_later(main)

    def _turned(self) -> None:
        self._asked_at = None

    def _held(self, thread: threading.Thread, seconds: float) -> None:
        log.warning(
            "sink_blocks",
            sink=self.name,
            seconds=round(seconds, 1),
            at=_where(thread),
            hint="its other deliveries wait: await instead, or make on_recording_complete a plain def, "
            "which runs in threads",
        )
        self._on_held()


class _Call:
    """One call on its way to another loop and back. `done` belongs to the main loop."""

    def __init__(
        self,
        main: asyncio.AbstractEventLoop,
        own: asyncio.AbstractEventLoop,
        context: contextvars.Context,
        function: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        self.done: asyncio.Future[Any] = main.create_future()
        self._main, self._own, self._context = main, own, context
        self._function, self._args = function, args
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False

    def begin(self) -> None:
        """Start the call. Called on the sink's loop."""
        if self._cancelled:
            self._answer(None, SinkError("cancelled before it began"))
            return
        self._task = self._own.create_task(self._work(), context=self._context)

    def cancel(self) -> None:
        """Cancel the call. Called on the sink's loop."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            value = await self._function(*self._args)
        except asyncio.CancelledError:
            self._answer(None, SinkError("CancelledError: what it waited for was cancelled"))
        except Exception as exc:
            self._answer(None, exc)
        except BaseException as exc:  # sys.exit, a panic in an extension: only the main thread gets signals
            self._answer(None, SinkError(f"{type(exc).__name__}: {exc}"))
        else:
            self._answer(value, None)

    def _answer(self, value: Any, error: Exception | None) -> None:
        def tell() -> None:
            if self.done.done():
                return
            if error is None:
                self.done.set_result(value)
            else:
                self.done.set_exception(error)

        with contextlib.suppress(RuntimeError):  # the main loop is closed: nothing waits
            self._main.call_soon_threadsafe(tell)


def _turned_until_stopped(loop: asyncio.AbstractEventLoop, name: str) -> bool:
    """Run the loop until it is stopped. Return False when an exception of the sink broke out of it: run it again."""
    try:
        loop.run_forever()
    except BaseException as exc:  # asyncio lets SystemExit of any task out of the loop
        log.error("sink_loop_broken", sink=name, error=f"{type(exc).__name__}: {exc}")
        return False
    return True


def _where(thread: threading.Thread) -> str:
    """Return file, line and function of the sink that the thread is in; empty when it is in none."""
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
    found = ""
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_NOT_THE_SINK):
            found = f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
        frame = frame.f_back
    return found
