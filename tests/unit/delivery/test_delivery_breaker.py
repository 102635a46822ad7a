"""The circuit breaker: pure, so every path of it is walked here."""

from __future__ import annotations

from fastagi.delivery.breaker import FIRST_SECONDS, LONGEST_ASKED, LONGEST_SECONDS, THRESHOLD, Breaker


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(THRESHOLD):
        breaker.failed(now)
    return breaker


def test_success_resets_the_failure_count() -> None:
    """The breaker stays closed below the threshold, and a success resets the count."""
    breaker = Breaker()
    for _ in range(3):
        for _ in range(THRESHOLD - 1):
            assert not breaker.failed(0.0)
            assert breaker.admit(0.0) == 0.0
        assert not breaker.passed()
    assert not breaker.is_open


def test_open_breaker_admits_one_probe() -> None:
    """The breaker opens and lets one probe through."""
    breaker = opened()
    assert breaker.is_open
    assert breaker.admit(1.0) == FIRST_SECONDS - 1.0
    assert breaker.admit(FIRST_SECONDS) == 0.0
    assert breaker.admit(FIRST_SECONDS) > 0, "only one"
    assert breaker.passed()
    assert breaker.admit(FIRST_SECONDS) == 0.0
    assert breaker.admit(FIRST_SECONDS) == 0.0


def test_failed_probes_double_the_pause() -> None:
    """Each failed probe doubles the pause, up to a minute."""
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(8):
        pause = breaker.admit(now)
        pauses.append(pause)
        now += pause
        assert breaker.admit(now) == 0.0
        assert breaker.failed(now)
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0]
    assert pauses[-1] == LONGEST_SECONDS


def test_late_failures_do_not_prolong_pause() -> None:
    """Failures of attempts that were under way when the breaker opened do not prolong the pause."""
    breaker = opened()
    until = breaker.open_until
    assert breaker.failed(1.0)
    assert breaker.open_until == until


def test_retry_after_is_capped() -> None:
    """A receiver's Retry-After counts, but not for ever."""
    breaker = Breaker(failures=THRESHOLD - 1)
    breaker.failed(0.0, retry_after=120.0)
    assert breaker.open_until == 120.0
    breaker = Breaker(failures=THRESHOLD - 1)
    breaker.failed(0.0, retry_after=1e9)
    assert breaker.open_until == LONGEST_ASKED


def test_abandoned_probe_admits_another() -> None:
    breaker = opened()
    assert breaker.admit(5.0) == 0.0
    breaker.abandoned()
    assert breaker.admit(5.0) == 0.0
