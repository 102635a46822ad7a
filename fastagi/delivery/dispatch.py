"""The interface of both dispatchers, which call handlers when ids are due. `opening` chooses a store's dispatcher.

The ledger is the truth; a dispatcher only knows ids and times. It may lose an id (it reads the ledger again) or give
one twice (the ledger's claim lets one through). It owns no attempts, no back-off and no outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa

Handler = Callable[[str], Awaitable[None]]
"""Called with an id when it is due. The handler settles it in the ledger, and enqueues again what must come again."""


@dataclass(frozen=True, slots=True)
class Item:
    """A waiting entry of the ledger.

    :param run_at: unix seconds
    """

    id: str
    run_at: float


Source = Callable[[sa.Connection, int], list[Item]]
"""A unit that reads up to a number of items that wait for one queue from the ledger, the earliest first."""


class Reschedule(Exception):
    """Raised by a handler to get this id again later.

    :param seconds: from now
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds:.1f} s")
        self.seconds = seconds


class Dispatcher(Protocol):
    """Calls handlers with ids that are due, at most `limit` of a queue at once.

    A handler that raises is called again with that id, after a growing pause.
    """

    def register(self, queue: str, handler: Handler, limit: int, source: Source) -> None:
        """Begin to serve a queue, before or after `start`. Ids that wait in the ledger are found without `enqueue`.

        :param source: reads the queue's items from the ledger
        :raises ValueError: the queue is registered
        """

    def unregister(self, queue: str) -> None:
        """Stop serving a queue; running handlers go on. Unknown queues are ignored."""

    def refresh(self, queue: str) -> None:
        """Read that queue's items from the ledger again soon: they were changed without `enqueue`."""

    def enqueue(self, conn: sa.Connection, queue: str, id: str, run_at: float) -> None:
        """Queue an id in the transaction that `conn` is in; a rollback discards it. Idempotent.

        :param run_at: unix seconds
        """

    def cancel(self, conn: sa.Connection, queue: str, id: str) -> None:
        """Take back an id that is queued and not running, in the transaction that `conn` is in."""

    def throttle(self, queue: str, limit: int | None, until: float = 0.0) -> None:
        """Serve a queue with `limit` at once instead of its own, and not at all before `until` (unix seconds).

        :param limit: None for its own again, at once
        """

    def nudge(self) -> None:
        """Read the clock now, after it was set."""

    async def start(self) -> None:
        """Begin to call handlers."""

    async def stop(self, drain_seconds: float) -> None:
        """Call no more handlers, wait `drain_seconds` for running ones, then cancel them. Idempotent."""
