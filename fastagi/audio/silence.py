"""Silence limits of a stream: `milliseconds_max_silence` and `milliseconds_initial_silence`.

The level monitor judges a growing file and `render` the finished one by the same class; the block size makes no
difference. The monitor's result stops the recording of the call, `render`'s result cuts the file to 10 ms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastagi.audio.energy import FrameEnergy, mean_square_at

Samples = NDArray[np.int16]

BURST_FRAMES = 3
"""Loud 10 ms frames in a row that make a sound; one or two are a click on the line."""


class SilenceWatch:
    """Find where a recording ends for silence. Takes the samples of one recording from its start.

    Sound is a run of at least three 10 ms frames above the threshold. Until the first sound `initial_ms` counts (or
    `max_ms` when there is no initial limit), from then on `max_ms`, each time from the end of the last sound. The
    trigger is exactly `end of sound + limit`, the end rounded up to 10 ms.

    :param rate: Hz
    :param threshold_dbfs: RMS below which a frame is silence (a setting: it must lie above the line's noise)
    :param initial_ms: silence allowed before the first sound, 0 for no limit
    :param max_ms: silence allowed after a sound, 0 for no limit
    """

    def __init__(self, rate: int, threshold_dbfs: float = -48.0, initial_ms: int = 0, max_ms: int = 0) -> None:
        self.rate = rate
        self._energy = FrameEnergy(rate)
        self._threshold = mean_square_at(threshold_dbfs)
        self._max = max_ms * rate // 1000
        self._first_limit = initial_ms * rate // 1000 if initial_ms else self._max
        self._done = 0  # complete 10 ms frames judged
        self._quiet_since = 0  # samples: end of the last sound, moved on by what was skipped
        self._run = 0  # loud frames in a row, up to the last one judged
        self.trigger: int | None = None
        """Sample index at which the recording ends for silence; None while it goes on."""
        self.first_sound: int | None = None
        """Sample index at which the first sound begins."""
        self.initial = False
        """True when no sound had come before the trigger."""

    @property
    def frames(self) -> int:
        """Samples seen or skipped so far."""
        return self._done * self._energy.frame + len(self._energy.rest)

    @property
    def quiet(self) -> int:
        """Samples since the end of the last sound, or since the start, without skipped samples."""
        return self.frames - self._quiet_since

    def ends_at(self) -> int | None:
        """Return the sample index of the limit if no sound comes any more; None without a limit."""
        if self.trigger is not None:
            return self.trigger
        limit = self._max if self.first_sound is not None else self._first_limit
        return self._quiet_since + limit if limit else None

    def feed(self, block: Samples) -> int | None:
        """Judge the next samples (one channel). A trigger stays once it is set.

        :returns: the trigger's sample index, or None
        """
        if self.trigger is not None:
            return self.trigger
        loud = self._energy.feed(block) >= self._threshold
        if len(loud):
            self._judge(loud)
        return self.trigger

    def skip(self, count: int) -> None:
        """Skip `count` samples without judging them (a pause): the silence before them continues after them."""
        if self.trigger is not None or count <= 0:
            return
        frames = self._energy.skip(count)
        self._done += frames
        self._quiet_since += frames * self._energy.frame
        if frames:
            self._run = 0

    def finish(self) -> int | None:
        """End the recording. A limit that falls into the last, incomplete frame counts too."""
        if self.trigger is None:
            limit = self._max if self.first_sound is not None else self._first_limit
            if limit and self.frames - self._quiet_since >= limit:
                self._pull(self._quiet_since, limit)
        return self.trigger

    def _judge(self, loud: NDArray[np.bool_]) -> None:
        size = self._energy.frame
        index = np.arange(self._done, self._done + len(loud))
        before = np.maximum.accumulate(np.where(loud, self._done - self._run - 1, index))
        sounding = index - before >= BURST_FRAMES
        ends = np.maximum.accumulate(np.where(sounding, (index + 1) * size, self._quiet_since))
        elapsed = (index + 1) * size - ends
        self._done += len(loud)
        self._run = int(index[-1] - before[-1])
        start = 0
        if self.first_sound is None:
            start = int(np.argmax(sounding)) if sounding.any() else len(loud)
            if self._first_limit and (elapsed[:start] >= self._first_limit).any():
                self._pull(self._quiet_since, self._first_limit)
                return
            if start == len(loud):
                return
            self.first_sound = (int(index[start]) - BURST_FRAMES + 1) * size
        late = elapsed[start:] >= self._max
        if self._max and late.any():
            self._pull(int(ends[start + int(np.argmax(late))]), self._max)
            return
        self._quiet_since = int(ends[-1])

    def _pull(self, since: int, limit: int) -> None:
        self.trigger = since + limit
        self.initial = self.first_sound is None
