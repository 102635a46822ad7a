"""Encoding of IMA ADPCM in WAV: libsndfile writes blocks of one size only, and fills up the last one.

Not every reader honours the sample count in `fact`: ffmpeg, sox and libsndfile decode whole blocks. So where the length
of the file is known ahead, the block size is chosen so that (nearly) nothing is left over in the last block.
All blocks of a stretch are encoded side by side: each begins with a sample of its own, so no block waits for another.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from fastagi.audio.codecs.base import Samples, Wanted
from fastagi.audio.output import Counter, Output

Ints = NDArray[np.int32]

HEADER_BYTES = 60
STATE_BYTES = 4
"""Bytes at the front of a block: its first sample and its step. Two samples a byte follow."""

SMALLEST_BLOCK, LARGEST_BLOCK = 64, 512

_STRETCH = 1 << 18
"""Samples encoded at once: enough blocks side by side that numpy releases the GIL in each step."""

_AHEAD = 16
"""Samples that decide a block's first step."""

# fmt: off
_STEPS: Ints = np.array([
    7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97,
    107, 118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796,
    876, 963, 1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871,
    5358, 5894, 6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623,
    27086, 29794, 32767,
], np.int32)
# fmt: on


def _tables() -> tuple[Ints, Ints]:
    """Return two tables by step * 16 + code: the code's addition to the prediction, and 16 times the next step."""
    code = np.arange(16)
    size = code & 7
    step = _STEPS[:, None]
    change = (step >> 3) + (step >> 2) * (size & 1) + (step >> 1) * (size >> 1 & 1) + step * (size >> 2)
    change = np.where(code & 8, -change, change)
    move = np.where(size < 4, -1, 2 * (size - 3))
    after = np.clip(np.arange(len(_STEPS))[:, None] + move, 0, len(_STEPS) - 1) * 16
    return change.astype(np.int32).reshape(-1), after.astype(np.int32).reshape(-1)


_CHANGE, _AFTER = _tables()
_PER_STEP: NDArray[np.float32] = np.repeat(4 / _STEPS, 16).astype(np.float32)


def block_frames(block_bytes: int) -> int:
    """Return how many samples a block holds."""
    return 2 * (block_bytes - STATE_BYTES) + 1


def usual_block(rate: int) -> int:
    """Return the block size, in bytes, of a file whose length is not known."""
    return 256 if rate < 12_000 else 512


def fitting_block(frames: int, rate: int, most_bytes: int = 0) -> int:
    """Return the block size, in bytes, that leaves the fewest samples over in the last block.

    :param most_bytes: the file's largest size; 0 for none
    """

    def badness(block: int) -> tuple[int, int]:
        return -frames % block_frames(block), abs(block - usual)

    usual = usual_block(rate)
    sizes = [
        block
        for block in range(SMALLEST_BLOCK, LARGEST_BLOCK + 1, 4)
        if not most_bytes or HEADER_BYTES + -(-frames // block_frames(block)) * block <= most_bytes
    ]
    return min(sizes or [usual], key=badness)


def open_writer(output: Output | Counter, wanted: Wanted) -> ImaFile:
    """Return a writer of one file. Its blocks fit the number of samples, where that is known."""
    known = wanted.frames > 0
    block = fitting_block(wanted.frames, wanted.rate, wanted.most_bytes) if known else usual_block(wanted.rate)
    return ImaFile(output, wanted.rate, block)


class ImaFile:
    """WAV file of one channel being written.

    :param block_bytes: size of its blocks
    """

    def __init__(self, output: Output | Counter, rate: int, block_bytes: int) -> None:
        self._output = output
        self._rate = rate
        self._block = block_bytes
        self._per_block = block_frames(block_bytes)
        self._waiting: list[Samples] = []
        self._held = 0
        self._frames = 0
        output.write(bytes(HEADER_BYTES))

    @property
    def held_bytes(self) -> int:
        """Bytes of whole blocks that are not encoded yet."""
        return self._held // self._per_block * self._block

    def write(self, samples: Samples) -> None:
        """Append samples."""
        self._waiting.append(samples.copy())
        self._held += len(samples)
        self._frames += len(samples)
        if self._held >= _STRETCH:
            self._encode(self._held // self._per_block)

    def close(self) -> None:
        """Encode the rest and write the header."""
        blocks = -(-self._held // self._per_block)
        if blocks:
            last = self._waiting[-1][-1:]
            self._waiting.append(np.repeat(last, blocks * self._per_block - self._held))
            self._encode(blocks)
        data = self._output.size - HEADER_BYTES
        per_second = self._rate * self._block // self._per_block
        fmt = struct.pack("<HHIIHHHH", 0x0011, 1, self._rate, per_second, self._block, 4, 2, self._per_block)
        head = struct.pack("<4sI4s4sI", b"RIFF", HEADER_BYTES - 8 + data, b"WAVE", b"fmt ", len(fmt))
        fact = struct.pack("<4sII4sI", b"fact", 4, self._frames, b"data", data)
        self._output.patch(0, head + fmt + fact)

    def abort(self) -> None:
        """Leave the file as it is."""
        self._waiting = []

    def _encode(self, blocks: int) -> None:
        """Write the first `blocks` of the waiting blocks."""
        samples = np.concatenate(self._waiting)
        used = blocks * self._per_block
        self._waiting = [samples[used:]]
        self._held = max(0, len(samples) - used)
        self._output.write(encoded(samples[:used].reshape(blocks, -1)).tobytes())


def encoded(blocks: Samples) -> NDArray[np.uint8]:
    """Return the bytes of each block, from (blocks, samples)."""
    by_time = np.ascontiguousarray(blocks.T, dtype=np.int32)
    count = blocks.shape[0]
    moves = np.abs(np.diff(by_time[: _AHEAD + 1], axis=0)).mean(axis=0)
    first = np.minimum(np.searchsorted(_STEPS, moves), len(_STEPS) - 1).astype(np.int32)
    out = np.zeros((count, STATE_BYTES + blocks.shape[1] // 2), np.uint8)
    out[:, :2] = blocks[:, 0].astype("<i2").view(np.uint8).reshape(count, 2)
    out[:, 2] = first
    codes = np.zeros((blocks.shape[1] - 1, count), np.uint8)
    step, guess = first * 16, by_time[0].copy()
    for row, wanted in zip(codes, by_time[1:], strict=True):
        gap = wanted - guess
        code = (np.abs(gap) * _PER_STEP[step]).astype(np.int32)
        np.minimum(code, 7, out=code)
        code |= (gap < 0).astype(np.int32) << 3
        row[:] = code
        step += code
        guess += _CHANGE[step]
        np.clip(guess, -32768, 32767, out=guess)
        step = _AFTER[step]
    out[:, STATE_BYTES:] = (codes[0::2] | codes[1::2] << 4).T
    return out
