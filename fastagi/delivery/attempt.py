"""One call of one sink, with a time limit, and its outcome. Knows no queue and no ledger."""

from __future__ import annotations

import asyncio

from fastagi.delivery.registry import Entry
from fastagi.delivery.sink import CurrentDelivery, current_delivery, is_number
from fastagi.domain.delivery import Outcome
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import SinkError


async def attempt(entry: Entry, metadata: RecordingMetadata, current: CurrentDelivery) -> Outcome:
    """Call the sink where it runs (`SinkRunner`) and return the outcome.

    Every exception of the sink is an outcome; only the cancellation of this attempt passes (and Ctrl-C, when SIGINT has
    no handler). A sink that never returns holds only its own loop or threads.
    """
    token = current_delivery.set(current)
    limit = asyncio.timeout(entry.time_limit_seconds)
    try:
        async with limit:
            await entry.runner.deliver(metadata)
    except SinkError as exc:
        asked = exc.retry_after if is_number(exc.retry_after) else None  # a user's sink may raise any text
        return Outcome(False, str(exc), retry=bool(exc.retry), retry_after=asked, refused=exc.refused is True)
    except Exception as exc:
        if isinstance(exc, TimeoutError) and limit.expired():
            return Outcome(False, f"the sink took longer than {entry.time_limit_seconds:g} s")
        return Outcome(False, f"{type(exc).__name__}: {exc}")
    finally:
        current_delivery.reset(token)
    return Outcome(True)
