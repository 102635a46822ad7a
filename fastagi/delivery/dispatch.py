"""The port that says "now, you": what both dispatchers do. Which one a store takes: `opening`.

The ledger is the truth. A dispatcher only knows ids and times. It may lose one (it asks the ledger again) or give one
twice (the ledger's claim lets one through), and owns no attempts, no back-off and no outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa

Handler = Callable[[str], Awaitable[None]]
"""Called with an id when it is due. It settles the matter in the ledger, and enqueues again what is to come again."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that waits in the ledger. :param run_at: unix seconds"""

    id: str
    run_at: float


Source = Callable[[sa.Connection, int], list[Item]]
"""A unit that reads the ledger: up to so many items that wait for one queue, the earliest first."""


class Reschedule(Exception):
    """Raised by a handler: not now; give me this id again.

    :param seconds: from now
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds:.1f} s")
        self.seconds = seconds


class Dispatcher(Protocol):
    """Calls handlers with ids that are due, at most `limit` of a queue at once.

    A handler that raises anything is called again with that id, later each time.
    """

    def register(self, queue: str, handler: Handler, limit: int, source: Source) -> None:
        """Begins to serve a queue, before or after `start`; what waits for it in the ledger is found by itself.

        :param source: how the ledger is asked for it
        :raises ValueError: the queue is registered
        """

    def unregister(self, queue: str) -> None:
        """Stops serving it; running handlers go on. Unknown queues are ignored."""

    def refresh(self, queue: str) -> None:
        """Asks the ledger soon what waits for that queue: it was changed without `enqueue`."""

    def enqueue(self, conn: sa.Connection, queue: str, id: str, run_at: float) -> None:
        """Queues an id, together with the transaction that `conn` is in or not at all. Idempotent.

        :param run_at: unix seconds
        """

    def cancel(self, conn: sa.Connection, queue: str, id: str) -> None:
        """Takes back what is queued and not running, together with the transaction."""

    def throttle(self, queue: str, limit: int | None, until: float = 0.0) -> None:
        """Serves a queue with `limit` at once instead of its own, and not at all before `until` (unix seconds).

        :param limit: None for its own again, at once
        """

    def nudge(self) -> None:
        """Looks at the clock now: for those who turn it."""

    async def start(self) -> None:
        """Begins to call handlers."""

    async def stop(self, drain_seconds: float) -> None:
        """Calls no more; waits so long for running handlers, then cancels them. Idempotent."""
