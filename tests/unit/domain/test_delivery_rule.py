"""When a delivery is tried again: `fastagi.domain.delivery.judge`."""

from __future__ import annotations

import pytest

from fastagi.domain.delivery import GIVE_UP_SECONDS, LONGEST_DELAY, DeliveryStatus, Outcome, Verdict, judge


def after(retry_after: float | None, *, attempts: int = 1, elapsed: float = 0.0) -> Verdict:
    outcome = Outcome(False, "503", retry_after=retry_after)
    return judge(outcome, attempts=attempts, first_at=1000.0, now=1000.0 + elapsed, jitter=1.0)


@pytest.mark.parametrize("asked", [60.0, LONGEST_DELAY, 7200.0, 80_000.0, GIVE_UP_SECONDS])
def test_what_the_receiver_asks_for_is_waited_for(asked: float) -> None:
    assert after(asked) == Verdict(DeliveryStatus.WAITING, 1000.0 + asked)


@pytest.mark.parametrize("asked", [GIVE_UP_SECONDS - 600, 7 * GIVE_UP_SECONDS, 1e300])
def test_who_asks_for_more_than_is_left_of_the_day_is_asked_once_again_at_its_end(asked: float) -> None:
    last = after(asked, attempts=7, elapsed=3600.0)
    assert last == Verdict(DeliveryStatus.WAITING, 1000.0 + GIVE_UP_SECONDS)
    assert after(asked, attempts=8, elapsed=last.next_at - 1000.0).status is DeliveryStatus.DEAD


def test_a_sink_has_its_own_hours() -> None:
    """`retry_hours` per sink: one hour here."""

    def at(seconds: float) -> Verdict:
        return judge(
            Outcome(False, "503"), attempts=9, first_at=1000.0, now=1000.0 + seconds, jitter=0.0, retry_seconds=3600.0
        )

    assert at(3000.0) == Verdict(DeliveryStatus.WAITING, 1000.0 + 3600.0)
    assert at(3600.0).status is DeliveryStatus.DEAD


def test_who_asks_for_less_than_the_step_waits_for_the_step() -> None:
    assert after(1.0, attempts=4) == after(None, attempts=4) == Verdict(DeliveryStatus.WAITING, 1040.0)
    assert after(None, attempts=30) == Verdict(DeliveryStatus.WAITING, 1000.0 + LONGEST_DELAY)
