"""fastagi.audio.silence: the trigger to 10 ms, the same for any block size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sound import Samples, silence, tone

from fastagi.audio import SilenceWatch

RATE = 8000


def sound(seconds: float) -> Samples:
    return tone(500, seconds, -20)


def watch(samples: Samples, block: int = 4096, finish: bool = True, **limits: int) -> SilenceWatch:
    judge = SilenceWatch(RATE, **limits)
    for start in range(0, len(samples), block):
        judge.feed(samples[start : start + block])
    if finish:
        judge.finish()
    return judge


@pytest.mark.parametrize("end_ms", [500, 503, 507, 509, 511, 1234])
@pytest.mark.parametrize("limit", [500, 1000, 1005])
def test_trigger_is_exact_to_10_ms(end_ms: int, limit: int) -> None:
    samples = np.concatenate((sound(end_ms / 1000), silence(4)))
    judge = watch(samples, max_ms=limit)
    assert judge.trigger is not None
    error_ms = judge.trigger / 8 - end_ms - limit
    assert 0 <= error_ms <= 10
    assert not judge.initial


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=30),
    st.integers(0, 79),
    st.sampled_from([0, 300, 777]),
    st.sampled_from([0, 200, 555]),
    st.lists(st.integers(1, 9000), min_size=1, max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_block_size_changes_nothing(
    parts: list[tuple[bool, int]], odd: int, initial_ms: int, max_ms: int, blocks: list[int]
) -> None:
    loud, quiet = sound(0.6), silence(0.6)
    samples = np.concatenate([(loud if on else quiet)[: n * 80 - odd] for on, n in parts])
    whole = watch(samples, 10**9, initial_ms=initial_ms, max_ms=max_ms)
    other = SilenceWatch(RATE, -48.0, initial_ms, max_ms)
    at = turn = 0
    while at < len(samples):
        size = blocks[turn % len(blocks)]
        other.feed(samples[at : at + size])
        at, turn = at + size, turn + 1
    other.finish()
    assert (whole.trigger, whole.first_sound, whole.initial) == (other.trigger, other.first_sound, other.initial)
    one_by_one = reference(samples, initial_ms, max_ms)
    assert (whole.trigger, whole.first_sound) == one_by_one


def reference(samples: Samples, initial_ms: int, max_ms: int) -> tuple[int | None, int | None]:
    """The rule frame by frame, as the docstring of SilenceWatch says it."""
    run, since, first = 0, 0, None
    frames = len(samples) // 80
    for i in range(frames):
        rms = np.sqrt(np.mean(samples[i * 80 : i * 80 + 80].astype(float) ** 2))
        run = run + 1 if rms >= 32768 * 10 ** (-48 / 20) else 0
        if run >= 3:
            since = (i + 1) * 80
            if first is None:
                first = (i - 2) * 80
        limit = 8 * (initial_ms or max_ms if first is None else max_ms)
        if limit and (i + 1) * 80 - since >= limit:
            return since + limit, first
    limit = 8 * (initial_ms or max_ms if first is None else max_ms)
    if limit and len(samples) - since >= limit:
        return since + limit, first
    return None, first


def test_initial_limit() -> None:
    judge = watch(silence(3), initial_ms=2000, max_ms=500)
    assert (judge.trigger, judge.initial, judge.first_sound) == (16000, True, None)
    judge = watch(np.concatenate((silence(1.5), sound(0.5), silence(3))), initial_ms=2000, max_ms=500)
    assert judge.first_sound == 12000
    assert judge.trigger == 16000 + 4000
    judge = watch(np.concatenate((silence(1.5), sound(0.5), silence(3))), initial_ms=2000)
    assert judge.trigger is None


def test_max_silence_counts_from_the_start() -> None:
    """Without an initial limit the other one counts before the first sound, too."""
    judge = watch(silence(3), max_ms=1000)
    assert (judge.trigger, judge.initial) == (8000, True)


@pytest.mark.parametrize(("frames", "is_sound"), [(1, False), (2, False), (3, True)])
def test_a_click_is_no_sound(frames: int, is_sound: bool) -> None:
    samples = np.concatenate((silence(0.5), sound(frames / 100), silence(2)))
    judge = watch(samples, max_ms=1000)
    assert (judge.first_sound is not None) is is_sound
    assert judge.trigger == (4000 + frames * 80 + 8000 if is_sound else 8000)


def test_threshold_is_a_setting() -> None:
    noisy = silence(3, dbfs=-45)
    assert SilenceWatch(RATE, -48, 0, 1000).feed(noisy) is None
    assert SilenceWatch(RATE, -40, 0, 1000).feed(noisy) == 8000


def test_no_limits_never_trigger() -> None:
    assert watch(silence(30)).trigger is None


def test_skipped_time_is_nobodys_silence() -> None:
    judge = SilenceWatch(RATE, -48, 0, 1000)
    judge.feed(sound(0.5))
    judge.feed(silence(0.75))
    judge.skip(10 * RATE)
    assert judge.feed(silence(0.2)) is None
    assert judge.quiet == pytest.approx(0.95 * RATE, abs=0.01 * RATE)
    assert judge.feed(silence(0.2)) == 4000 + 80_000 + 8000
    assert judge.frames >= 4000 + 80_000 + 8000


def test_trigger_stays() -> None:
    judge = watch(np.concatenate((silence(2), sound(1))), max_ms=1000)
    assert judge.trigger == 8000
    assert judge.feed(sound(1)) == 8000
    judge.skip(8000)
    assert judge.finish() == 8000


def test_limit_in_last_half_frame_counts() -> None:
    samples = silence(2)[: 8000 + 50]
    judge = watch(samples, finish=False, max_ms=1005)
    assert judge.trigger is None
    assert judge.finish() == 8040


def test_wideband() -> None:
    samples = np.concatenate((tone(500, 1, -20, 16000), silence(2, 16000)))
    assert SilenceWatch(16000, -48, 0, 1000).feed(samples) == 32000
