"""Sound for the audio tests, made here: voices, tones, digits; and the independent judges sox, ffmpeg, multimon-ng."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]

DBM0_PEAK = 32256 * 10 ** (-3.14 / 20)
"""Amplitude of a sine of 0 dBm0 (a full-scale A-law sine is +3.14 dBm0)."""

SYMBOLS = "123A456B789C*0#D"
ROWS = (697, 770, 852, 941)
COLUMNS = (1209, 1336, 1477, 1633)


def to_int16(x: NDArray[np.floating]) -> Samples:
    return np.clip(np.rint(x), -32768, 32767).astype(np.int16)


def tone(hz: float, seconds: float, dbm0: float = -10.0, rate: int = 8000) -> Samples:
    time = np.arange(round(seconds * rate)) / rate
    return to_int16(DBM0_PEAK * 10 ** (dbm0 / 20) * np.sin(2 * np.pi * hz * time + 0.3))


def digit(
    symbol: str,
    ms: float,
    dbm0: float = -10.0,
    twist_db: float = 0.0,
    off: tuple[float, float] = (0.0, 0.0),
    rate: int = 8000,
    phase: float = 0.0,
) -> NDArray[np.float64]:
    """One DTMF digit; `dbm0` is the mean of the two tones' levels, `twist_db` column over row."""
    index = SYMBOLS.index(symbol)
    row, column = ROWS[index // 4] * (1 + off[0]), COLUMNS[index % 4] * (1 + off[1])
    time = np.arange(round(ms * rate / 1000)) / rate
    peak = DBM0_PEAK * 10 ** (dbm0 / 20)
    low = peak * 10 ** (-twist_db / 40) * np.sin(2 * np.pi * row * time + phase)
    return low + peak * 10 ** (twist_db / 40) * np.sin(2 * np.pi * column * time + 1.7 * phase)


def voice(seconds: float, seed: int = 0, rate: int = 8000, dbfs: float = -18.0) -> Samples:
    """Something like speech: gliding harmonics under moving formants, hissing consonants, pauses between words."""
    rng = np.random.default_rng(seed)
    total = round(seconds * rate)
    out = np.zeros(total)
    base = rng.uniform(90, 240)
    at = 0
    while at < total:
        length = int(rate * rng.uniform(0.08, 0.32))
        kind = rng.random()
        time = np.arange(length) / rate
        shape = np.sin(np.pi * np.minimum(1, np.minimum(time, time[::-1]) / 0.04) / 2)
        if kind < 0.68:
            glide = base * rng.uniform(0.8, 1.25) * (1 + rng.uniform(-0.25, 0.25) * time / time[-1])
            shiver = np.interp(time, np.linspace(0, time[-1], 12), rng.normal(0, 0.008, 12))  # no voice is a sine
            phase = 2 * np.pi * np.cumsum(glide * (1 + shiver)) / rate
            formants = (rng.uniform(280, 800), rng.uniform(850, 2300), rng.uniform(2300, 3300))
            sound = rng.normal(0, 0.015, length)
            for harmonic in range(1, int(min(3600, rate / 2 - 200) / glide.max()) + 1):
                hz = harmonic * glide.mean()
                gain = sum(g / (1 + ((hz - f) / 130) ** 2) for g, f in zip((1, 0.5, 0.25), formants, strict=True))
                sound += (gain + 0.03) * min(1, 400 / hz) * np.sin(harmonic * phase + harmonic)
        elif kind < 0.82:
            sound = np.diff(rng.normal(0, 0.06, length + 1))
        else:
            sound = np.zeros(length)
        end = min(total, at + length)
        out[at:end] += (sound * shape * rng.uniform(0.5, 1.0))[: end - at]
        at = end
    out += rng.normal(0, 1e-4, total)
    return to_int16(out * 32768 * 10 ** (dbfs / 20) / np.sqrt(np.mean(out**2)))


def silence(seconds: float, rate: int = 8000, dbfs: float = -70.0, seed: int = 1) -> Samples:
    return to_int16(np.random.default_rng(seed).normal(0, 32768 * 10 ** (dbfs / 20), round(seconds * rate)))


def wav_bytes(samples: Samples, rate: int = 8000, closed: bool = True) -> bytes:
    """A WAV file as Asterisk writes it; not `closed`, both sizes are 0."""
    data = samples.astype("<i2").tobytes()
    sizes = (36 + len(data), len(data)) if closed else (0, 0)
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", sizes[0], b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return head + struct.pack("<4sI", b"data", sizes[1]) + data


def write_wav(path: Path, samples: Samples, rate: int = 8000, closed: bool = True) -> str:
    path.write_bytes(wav_bytes(samples, rate, closed))
    return str(path)


def snr_db(wanted: NDArray[np.generic], got: NDArray[np.generic]) -> float:
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    return float(10 * np.log10(np.sum(a**2) / max(1e-12, np.sum((a - b) ** 2))))


def program(name: str) -> str:
    """Path of a judge; .ci/run installs sox, ffmpeg and multimon-ng."""
    found = shutil.which(name)
    assert found, f"{name} is not installed: apt-get install sox ffmpeg multimon-ng"
    return found


def sox_decode(path: Path | str, *before: str, by: Sequence[str] = ()) -> Samples:
    """What sox hears in a file. :param by: argv of another sox than the machine's"""
    command = [*(by or [program("sox")]), "-D", *before, str(path), "-t", "raw", "-e", "signed", "-b", "16", "-"]
    return np.frombuffer(_run(command), np.int16)


def ffmpeg_decode(path: Path | str) -> Samples:
    """What ffmpeg hears in a file."""
    command = [program("ffmpeg"), "-v", "error", "-i", str(path), "-f", "s16le", "-acodec", "pcm_s16le", "-"]
    return np.frombuffer(_run(command), np.int16)


def ffprobe(path: Path | str) -> dict[str, str]:
    command = [program("ffprobe"), "-v", "error", "-show_entries", "stream=codec_name,sample_rate,channels"]
    lines = _run([*command, "-of", "default=noprint_wrappers=1", str(path)]).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def multimon(samples: Samples) -> str:
    """The digits that multimon-ng hears in 8 kHz audio."""
    raw = ["-t", "raw", "-e", "signed", "-b", "16", "-c", "1"]
    up = _run([program("sox"), *raw, "-r", "8000", "-", *raw, "-r", "22050", "-"], samples.tobytes())
    lines = _run([program("multimon-ng"), "-q", "-a", "DTMF", "-t", "raw", "-"], up).decode().splitlines()
    return "".join(line.split()[-1] for line in lines if line.startswith("DTMF"))


def _run(command: list[str], data: bytes = b"") -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}"
    return done.stdout
