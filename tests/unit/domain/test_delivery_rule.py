"""When a delivery is tried again: `fastagi.domain.delivery.judge`."""

from __future__ import annotations

import pytest

from fastagi.domain.delivery import (
    GIVE_UP_SECONDS,
    LONGEST_DELAY,
    DeliveryStatus,
    Outcome,
    SinkRefusals,
    Verdict,
    judge,
)


def after(retry_after: float | None, *, attempts: int = 1, elapsed: float = 0.0) -> Verdict:
    outcome = Outcome(False, "503", retry_after=retry_after)
    return judge(outcome, attempts=attempts, first_at=1000.0, now=1000.0 + elapsed, jitter=1.0)


@pytest.mark.parametrize("asked", [60.0, LONGEST_DELAY, 7200.0, 80_000.0, GIVE_UP_SECONDS])
def test_receivers_delay_is_kept(asked: float) -> None:
    assert after(asked) == Verdict(DeliveryStatus.WAITING, 1000.0 + asked)


@pytest.mark.parametrize("asked", [GIVE_UP_SECONDS - 600, 7 * GIVE_UP_SECONDS, 1e300])
def test_last_try_comes_at_the_end(asked: float) -> None:
    """A receiver may ask for a delay beyond the end of the retries."""
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


def test_shorter_delay_waits_for_the_step() -> None:
    assert after(1.0, attempts=4) == after(None, attempts=4) == Verdict(DeliveryStatus.WAITING, 1040.0)
    assert after(None, attempts=30) == Verdict(DeliveryStatus.WAITING, 1000.0 + LONGEST_DELAY)


REFUSED = Outcome(False, "401", retry=False, refused=True)


def states(*attempts: tuple[str, Outcome]) -> list[SinkRefusals]:
    """The state after each attempt, a second apart."""
    found = [SinkRefusals()]
    for n, (delivery, outcome) in enumerate(attempts, 1):
        found.append(found[-1].after(outcome, delivery, float(n)))
    return found[1:]


def test_three_refusals_hold_a_sink() -> None:
    """Of three recordings; that it can be tried again meanwhile says nothing."""
    later = Outcome(False, "503")
    found = states(("a", REFUSED), ("a", REFUSED), ("b", REFUSED), ("c", later), ("d", REFUSED), ("e", REFUSED))
    assert [state.held for state in found] == [False, False, False, False, True, True]
    assert found[-1] == SinkRefusals(("a", "b", "d"), 5.0, "401")


@pytest.mark.parametrize("between", [Outcome(True), Outcome(False, "422", retry=False)])
def test_another_answer_breaks_the_row(between: Outcome) -> None:
    found = states(("a", REFUSED), ("b", REFUSED), ("c", between), ("d", REFUSED), ("e", REFUSED))
    assert found[2] == SinkRefusals()
    assert not found[-1].held


def test_only_success_releases() -> None:
    held = states(("a", REFUSED), ("b", REFUSED), ("c", REFUSED))[-1]
    assert held.after(Outcome(False, "422", retry=False), "d", 9.0) == held
    assert held.after(Outcome(False, "503"), "d", 9.0) == held
    assert held.after(Outcome(True), "d", 9.0) == SinkRefusals()
    assert "held since 1970-01-01T00:00:03" in held.hint
    assert SinkRefusals(("a",)).hint == ""


def test_servers_count_together() -> None:
    one, two = SinkRefusals(("a", "b"), None, "401"), SinkRefusals(("b", "c"), None, "403")
    assert one.joined(two, 7.0) == SinkRefusals(("b", "c", "a"), 7.0, "401")
    assert not one.joined(SinkRefusals(("b",)), 7.0).held
    assert one.joined(SinkRefusals(("x",), 3.0), 7.0).held_since == 3.0


@pytest.mark.parametrize("outcome", [REFUSED, Outcome(False, "422", retry=False), Outcome(False, "503")])
def test_nothing_dies_while_held(outcome: Outcome) -> None:
    verdict = judge(outcome, attempts=1, first_at=0.0, now=10 * GIVE_UP_SECONDS, jitter=1.0, held=True)
    assert verdict == Verdict(DeliveryStatus.WAITING, 10 * GIVE_UP_SECONDS + 5.0)
