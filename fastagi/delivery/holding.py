"""Tracks the sinks that are held because their receivers refuse everything: a wrong secret, a path that is gone.

The rule is `fastagi.domain.delivery.SinkRefusals`, the ledger keeps the counts (`fastagi.store.queries.holds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import sqlalchemy as sa
import structlog

from fastagi.domain.delivery import Outcome, SinkRefusals
from fastagi.store.queries import holds
from fastagi.store.queries.deliveries import Due

log = structlog.get_logger(__name__)

SETTLED_SECONDS = 15.0
"""Seconds after which another server's release ends a hold: a younger hold may not be written yet."""


class Change(StrEnum):
    """The change that an outcome made."""

    NOTHING = "nothing"
    COUNTED = "counted"
    HELD = "held"
    RELEASED = "released"


class SinkHolds:
    """The state of all sinks. Changed on the event loop; `current` and `write` run in the ledger's thread."""

    def __init__(self) -> None:
        self._known: dict[str, SinkRefusals] = {}

    def load(self, rows: Mapping[str, SinkRefusals]) -> None:
        """Begin with the ledger's state."""
        self._known = dict(rows)

    def is_held(self, sink: str) -> bool:
        """Return whether deliveries to the sink wait."""
        return self._of(sink).held

    @property
    def held(self) -> dict[str, SinkRefusals]:
        """Return all held sinks by name."""
        return {sink: refusals for sink, refusals in self._known.items() if refusals.held}

    def note(self, sink: str, delivery_id: str, outcome: Outcome, now: float) -> Change:
        """Count an outcome; log when it holds or releases the sink."""
        before = self._of(sink)
        after = before.after(outcome, delivery_id, now)
        if after == before:
            return Change.NOTHING
        self._keep(sink, after)
        if after.held and not before.held:
            _tell_held(sink, after)
            return Change.HELD
        if before.held and not after.held:
            log.info("sink_released", sink=sink)
            return Change.RELEASED
        return Change.COUNTED

    def current(self, conn: sa.Connection, sink: str, change: Change, now: float, *, shared: bool) -> SinkRefusals:
        """Return the state by which an outcome is judged and written: of all servers, when several use the ledger.

        Call it in the transaction that writes the outcome. A hold may have begun between the outcome and its
        transaction.

        :param shared: other servers use the ledger
        """
        mine = self._of(sink)
        if not shared or change in (Change.NOTHING, Change.RELEASED) or not mine.deliveries:
            return mine
        return mine.joined(holds.lock(conn, sink), now)

    def write(self, conn: sa.Connection, sink: str, refusals: SinkRefusals, change: Change, now: float) -> list[Due]:
        """Write what `note` changed, with the outcome that changed it. Return the deliveries to queue."""
        if change is Change.NOTHING:
            return []
        holds.write(conn, sink, refusals)
        if refusals.held:  # deliveries that died of refusals before the sink was held
            return holds.take_back(conn, refusals.deliveries, now)
        if change is Change.RELEASED:
            return holds.begin_anew(conn, sink, now)
        return []

    def learn(self, sink: str, refusals: SinkRefusals) -> bool:
        """Keep what was written together with another server's count. Return True when that holds the sink."""
        mine = self._of(sink)
        if not mine.deliveries or mine.held or not refusals.held:
            return False
        self._keep(sink, refusals)
        _tell_held(sink, refusals)
        return True

    def adopt(self, rows: Mapping[str, SinkRefusals], now: float) -> dict[str, Change]:
        """Take over the state that other servers wrote. Return the sinks that are held or released by it."""
        changed: dict[str, Change] = {}
        for sink in {*rows, *self._known}:
            mine, theirs = self._of(sink), rows.get(sink, SinkRefusals())
            if theirs.held and not mine.held:
                self._keep(sink, theirs)
                _tell_held(sink, theirs)
                changed[sink] = Change.HELD
            elif mine.held_since is not None and not theirs.held and mine.held_since < now - SETTLED_SECONDS:
                self._keep(sink, theirs)
                log.info("sink_released", sink=sink)
                changed[sink] = Change.RELEASED
        return changed

    def forget(self, sink: str) -> None:
        """Remove a sink."""
        self._known.pop(sink, None)

    def _of(self, sink: str) -> SinkRefusals:
        return self._known.get(sink, SinkRefusals())

    def _keep(self, sink: str, refusals: SinkRefusals) -> None:
        if refusals.deliveries:
            self._known[sink] = refusals
        else:
            self._known.pop(sink, None)


def _tell_held(sink: str, refusals: SinkRefusals) -> None:
    log.error(
        "sink_held",
        sink=sink,
        error=refusals.error,
        hint="its deliveries wait, and one is tried about once a minute: mend the receiver, or url and signing_secret; "
        "fastagi doctor --send-ping tries them",
    )
