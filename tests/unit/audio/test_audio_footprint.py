"""Memory and the event loop beside a long rendering (two hours of it: benchmarks/audio)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_sound import digit, to_int16, voice, write_wav

from fastagi.audio import RawPiece, RenderPlan, mix, render
from fastagi.cipher import AesGcmCipher

PROGRAM = """
import sys
from fastagi.audio import RawPiece, RenderPlan, render
from fastagi.cipher import AesGcmCipher
m, r, t, target = sys.argv[1:]
render(RenderPlan((RawPiece(m, r, t),), target, rate=11025, max_silence_ms=60000, cipher=AesGcmCipher(b"k" * 32)))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def legs(folder: Path, seconds: int) -> RawPiece:
    minute = voice(60.0, seed=70, dbfs=-25)
    key = to_int16(digit("3", 80, -10))
    minute[8000 : 8000 + len(key)] = key
    received = np.tile(minute, seconds // 60 + 1)[: seconds * 8000]
    sent = np.roll(received, 4000)
    paths = [
        write_wav(folder / f"{seconds}-{n}.wav", s)
        for n, s in (("m", mix(received, sent)), ("r", received), ("t", sent))
    ]
    return RawPiece(*paths)


@pytest.mark.slow
def test_memory_is_independent_of_length(tmp_path: Path) -> None:
    peaks = []
    for seconds in (60, 2400):
        piece = legs(tmp_path, seconds)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, piece.mixed, piece.received, piece.sent, str(tmp_path / "done.wav")],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 5 * 1024, peaks  # kilobytes


@pytest.mark.slow
async def test_loop_goes_on_beside_it(tmp_path: Path) -> None:
    piece = legs(tmp_path, 2400)
    plan = RenderPlan((piece,), str(tmp_path / "done.wav"), rate=11025, cipher=AesGcmCipher(b"k" * 32))
    working = asyncio.create_task(asyncio.to_thread(render, plan))
    lags = []
    while not working.done():
        start = time.perf_counter()
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - start - 0.001)
    made = await working
    assert made.digits == 80
    assert len(lags) > 50
    assert np.percentile(lags, 99) < 0.030 * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
