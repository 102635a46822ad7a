"""Test audio: speech-like sound, tones, digits, Asterisk's own prompts, and comparison of two sounds.

Samples are float32 arrays in -1..1, files are mono 16-bit WAV. Deterministic: the same seed gives the same sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

Samples = npt.NDArray[np.float32]

RATE = 8000
"""Sample rate of Asterisk's recordings, Hz."""

_DTMF = {
    digit: (low, high)
    for low, row in zip((697, 770, 852, 941), ("123A", "456B", "789C", "*0#D"), strict=True)
    for digit, high in zip(row, (1209, 1336, 1477, 1633), strict=True)
}

_VOWELS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
    (640, 1190, 2390),
)
"""Formants in Hz (Peterson and Barney, 1952)."""


def speech(path: Path, seconds: float, seed: int = 1, *, rate: int = RATE, level: float = 0.25) -> Path:
    """Write a WAV that a silence or voice detector takes for speech: syllables with pitch, formants, hiss, and short
    pauses.

    :param seconds: its length
    :param seed: another seed is another voice saying something else
    :param level: RMS of the voiced parts, 0 to 1
    """
    return save(path, speech_samples(seconds, seed, rate=rate, level=level), rate)


def speech_samples(seconds: float, seed: int = 1, *, rate: int = RATE, level: float = 0.25) -> Samples:
    """Return the samples of `speech`."""
    random = np.random.default_rng(seed)
    out = np.zeros(round(seconds * rate), np.float64)
    pitch, at = random.uniform(95, 210), 0
    while at < len(out):
        length = int(random.uniform(0.12, 0.30) * rate)
        syllable = _syllable(random, length, pitch * random.uniform(0.85, 1.2), rate)
        out[at : at + length] += syllable[: len(out) - at]
        # a pause after every few syllables, as between words; never as long as a second
        at += length + (int(random.uniform(0.1, 0.45) * rate) if random.random() < 0.3 else int(0.02 * rate))
    loud = out[np.abs(out) > 0.02 * max(1e-9, np.abs(out).max())]
    if loud.size:
        out *= level / np.sqrt(np.mean(loud**2))
    return np.clip(out, -0.98, 0.98).astype(np.float32)


def _syllable(random: np.random.Generator, length: int, pitch: float, rate: int) -> npt.NDArray[np.float64]:
    """Return a consonant's hiss that glides into a vowel: harmonics of the pitch, shaped by the formants."""
    time = np.arange(length) / rate
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.04 * np.sin(2 * np.pi * random.uniform(3, 6) * time))) / rate
    formants = _VOWELS[random.integers(len(_VOWELS))]
    sound = np.zeros(length)
    for harmonic in range(1, int(min(3600, rate / 2 - 200) / pitch) + 1):
        hertz = harmonic * pitch
        strength = sum(1 / (1 + ((hertz - f) / (80 + 0.05 * f)) ** 2) / (i + 1) for i, f in enumerate(formants))
        sound += strength / harmonic**0.5 * np.sin(harmonic * phase + random.uniform(0, 6.28))
    sound *= np.sin(np.pi * np.arange(length) / length) ** 0.6
    hiss = random.normal(0, 0.15, length) * np.exp(-np.arange(length) / (0.03 * rate))
    return sound + hiss


def tone(path: Path, seconds: float, hertz: float = 440.0, *, rate: int = RATE, level: float = 0.25) -> Path:
    """Write a WAV with one sine; `level` is its RMS."""
    return save(path, tone_samples(seconds, hertz, rate=rate, level=level), rate)


def tone_samples(seconds: float, hertz: float = 440.0, *, rate: int = RATE, level: float = 0.25) -> Samples:
    """Return the samples of `tone`."""
    time = np.arange(round(seconds * rate)) / rate
    sine = level * np.sqrt(2) * np.sin(2 * np.pi * hertz * time)
    return np.asarray(sine, np.float32)


def digit_samples(digits: str, *, on: float = 0.1, off: float = 0.1, rate: int = RATE, level: float = 0.15) -> Samples:
    """Return in-band digits (Q.23), each `on` seconds of its two tones and `off` seconds of nothing."""
    gap = np.zeros(round(off * rate), np.float32)
    parts: list[Samples] = []
    for digit in digits:
        low, high = _DTMF[digit]
        parts += [tone_samples(on, low, rate=rate, level=level) + tone_samples(on, high, rate=rate, level=level), gap]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def silence_samples(seconds: float, *, rate: int = RATE) -> Samples:
    """Return digital silence."""
    return np.zeros(round(seconds * rate), np.float32)


def save(path: Path, samples: Samples, rate: int = RATE) -> Path:
    """Write a mono (or, from an array of two columns, stereo) 16-bit WAV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16", format="WAV")
    return path


def load(path: Path, *, rate: int = RATE) -> Samples:
    """Return the samples of any file that libsndfile reads (Asterisk's ``.gsm`` prompts, too), mono at `rate` Hz."""
    raw = path.suffix == ".gsm"
    kind = {"samplerate": 8000, "channels": 1, "format": "RAW", "subtype": "GSM610"} if raw else {}
    data, found = soundfile.read(path, dtype="float32", always_2d=True, **kind)
    mono = data.mean(axis=1)
    return np.asarray(mono if found == rate else soxr.resample(mono, found, rate), np.float32)


@dataclass(frozen=True, slots=True)
class Likeness:
    """Likeness of two sounds where they match best.

    :param coefficient: normalised correlation there: 1.0 the same but for loudness, about 0 unrelated
    :param offset: seconds into `a` at which `b` starts; negative when `b` starts before it
    """

    coefficient: float
    offset: float


def correlation(a: Samples, b: Samples, *, rate: int = RATE) -> Likeness:
    """Find `b` in `a` (or the other way round) and return how well the sounds match.

    The coefficient is taken over their common part. A match of less than a quarter of the shorter sound does not count,
    else any two sounds would match in their last samples.
    """
    if not len(a) or not len(b):
        return Likeness(0.0, 0.0)
    size = 1 << (len(a) + len(b) - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    energy_a, energy_b = (np.concatenate([[0.0], np.cumsum(np.asarray(x, np.float64) ** 2)]) for x in (a, b))
    shortest = max(1, min(len(a), len(b)) // 4)
    shifts = np.arange(shortest - len(b), len(a) - shortest + 1)
    first, last = np.maximum(0, shifts), np.minimum(len(a), shifts + len(b))
    norm = np.sqrt((energy_a[last] - energy_a[first]) * (energy_b[last - shifts] - energy_b[first - shifts]))
    score = np.where(norm > 1e-6, product[shifts % size] / np.maximum(norm, 1e-6), 0.0)
    best = int(np.argmax(score))
    return Likeness(float(score[best]), float(shifts[best] / rate))


def share_found(heard: Samples, said: Samples, *, window: float = 0.5, rate: int = RATE) -> float:
    """Return the share of the windows of `said` that are found anywhere in `heard`.

    Gaps and shifts, as in a busy machine's RTP, do no harm, unlike in `correlation`. Silent windows do not count; for
    silence the share is 1.

    :param window: seconds
    """
    size = round(window * rate)
    windows = [said[i : i + size] for i in range(0, len(said) - size + 1, size)]
    loud = [w for w in windows if rms(w) > 0.005]
    if not loud:
        return 1.0
    return sum(correlation(heard, w, rate=rate).coefficient > 0.7 for w in loud) / len(loud)


def rms(samples: Samples) -> float:
    """Return the RMS: 0 for silence, 0.707 for a full sine."""
    return float(np.sqrt(np.mean(np.asarray(samples, np.float64) ** 2))) if len(samples) else 0.0
