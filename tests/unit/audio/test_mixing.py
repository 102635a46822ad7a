"""fastagi.audio.mix: sums as Asterisk's, saturating; legs of unequal length."""

from __future__ import annotations

import numpy as np
from made_sound import voice

from fastagi.audio import interleave, mix


def test_sum_saturates() -> None:
    a = np.array([30000, -30000, 100, -32768, 32767], np.int16)
    b = np.array([30000, -30000, -300, -1, 1], np.int16)
    assert mix(a, b).tolist() == [32767, -32768, -200, -32768, 32767]
    assert mix(a, b).dtype == np.int16


def test_shorter_leg_is_continued_with_silence() -> None:
    a, b = voice(1.0, 1), voice(0.5, 2)
    for out in (mix(a, b), mix(b, a)):
        assert len(out) == len(a)
        assert np.array_equal(out[len(b) :], a[len(b) :])
    both = interleave(b, a)
    assert both.shape == (len(a), 2)
    assert np.array_equal(both[: len(b), 0], b)
    assert not both[len(b) :, 0].any()
    assert np.array_equal(both[:, 1], a)
    assert len(mix(a[:0], b[:0])) == 0


def test_legs_are_not_changed() -> None:
    a, b = voice(0.2, 1), voice(0.2, 2)
    a0, b0 = a.copy(), b.copy()
    mix(a, b)
    assert np.array_equal(a, a0)
    assert np.array_equal(b, b0)
