"""Peaks of a waveform: minimum and maximum per 20 ms."""

from __future__ import annotations

from os import PathLike

import numpy as np
from numpy.typing import NDArray

from fastagi.audio.reader import BLOCK_FRAMES, open_reader

Samples = NDArray[np.int16]


class Peaks:
    """Collect the peaks of a stream: 200 bytes per second and channel. The result does not depend on the block size.

    :param rate: Hz; :param channels: 1 or 2; :param window_ms: length of one step
    """

    def __init__(self, rate: int, channels: int = 1, window_ms: int = 20) -> None:
        self._window = max(1, rate * window_ms // 1000)
        self._channels = channels
        self._rest: Samples = np.zeros((0, channels), np.int16)
        self._steps: list[Samples] = []

    def feed(self, block: Samples) -> None:
        """Add samples: one channel, or (frames, channels)."""
        samples = block.reshape(-1, self._channels)
        if len(self._rest):
            samples = np.concatenate((self._rest, samples))
        whole = len(samples) // self._window * self._window
        self._rest = samples[whole:].copy()
        if whole:
            self._steps.append(_extremes(samples[:whole].reshape(-1, self._window, self._channels)))

    def result(self, points: int = 0) -> Samples:
        """Return minimum and maximum of each step, (steps, channels, 2); the last step may be shorter.

        :param points: most steps to return, each the extremes of several; 0 for all
        """
        steps = list(self._steps)
        if len(self._rest):
            steps.append(_extremes(self._rest[np.newaxis]))
        peaks = np.concatenate(steps) if steps else np.zeros((0, self._channels, 2), np.int16)
        if points <= 0 or len(peaks) <= points:
            return peaks
        starts = np.arange(points) * len(peaks) // points
        low = np.minimum.reduceat(peaks[..., 0], starts, axis=0)
        high = np.maximum.reduceat(peaks[..., 1], starts, axis=0)
        return np.stack((low, high), axis=-1)


def file_peaks(path: str | PathLike[str], points: int = 0, window_ms: int = 20) -> Samples:
    """Return the peaks of a finished file of any format (`Peaks.result`).

    :raises AudioError: the file cannot be read (an encrypted file is no audio)
    """
    reader = open_reader(path, own=True)
    try:
        peaks = Peaks(reader.rate, reader.channels, window_ms)
        while len(block := reader.read(BLOCK_FRAMES)):
            peaks.feed(block)
        return peaks.result(points)
    finally:
        reader.close()


def _extremes(windows: Samples) -> Samples:
    return np.stack((windows.min(axis=1), windows.max(axis=1)), axis=-1)
