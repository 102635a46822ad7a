"""Digits under a voice: how many are found, how many multimon-ng still hears afterwards, and how many are none.

    python -m benchmarks.audio.digits FOLDER...

FOLDER has recorded or spoken speech without digits (Asterisk's prompts, espeak-ng). Digits of 100 ms are laid over it
where somebody speaks; "over" is their power against that of the speech while it is active, in dB. What multimon-ng
hears in the speech alone is subtracted. The last lines count false digits, the speech also slower and faster.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from fastagi.audio import Digit, DtmfScanner, eliminate, open_reader, spans
from fastagi.errors import AudioError

import numpy as np  # isort: skip
from numpy.typing import NDArray  # isort: skip

Samples = NDArray[np.int16]
ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
RATE, LENGTH, MINUTE, MOST_MINUTES = 8000, 800, 480_000, 12
SPEEDS = (1.0, 0.93, 1.08)


def scan(samples: Samples) -> list[Digit]:
    scanner = DtmfScanner(RATE)
    for start in range(0, len(samples), 1 << 17):
        scanner.feed(samples[start : start + (1 << 17)])
    return scanner.finish()


def multimon(samples: Samples) -> int:
    """How many digits multimon-ng hears."""
    raw = ["-t", "raw", "-e", "signed", "-b", "16", "-c", "1"]
    up = ["sox", *raw, "-r", "8000", "-", *raw, "-r", "22050", "-"]
    louder = subprocess.run(up, input=samples.tobytes(), capture_output=True, check=True).stdout
    command = ["multimon-ng", "-q", "-a", "DTMF", "-t", "raw", "-"]
    return subprocess.run(command, input=louder, capture_output=True, check=True).stdout.count(b"DTMF")


def with_digits(speech: Samples, over: float, twist: float, rng: np.random.Generator) -> tuple[Samples, list[int]]:
    """The speech with a digit every second or so, and where these begin."""
    power = speech[: len(speech) // 80 * 80].astype(float).reshape(-1, 80) ** 2
    loudness = np.sqrt(power.mean(axis=1))
    level = float((loudness[loudness > loudness.max() / 20] ** 2).mean())
    out, places, at = speech.astype(float), [], RATE
    clock = np.arange(LENGTH) / RATE
    while at < len(speech) - RATE:
        if np.mean(speech[at : at + LENGTH].astype(float) ** 2) < 0.3 * level:
            at += 400
            continue
        off, phase = 1 + rng.uniform(-0.004, 0.004), rng.uniform(0, 6)
        tone = 10 ** (-twist / 40) * np.sin(2 * np.pi * off * ROWS[rng.integers(4)] * clock + phase)
        tone += 10 ** (twist / 40) * np.sin(2 * np.pi * off * COLUMNS[rng.integers(4)] * clock + 1.7 * phase)
        out[at : at + LENGTH] += tone * np.sqrt(level * 10 ** (over / 10) / np.mean(tone**2))
        places.append(at)
        at += RATE + int(rng.integers(0, RATE // 2))
    return np.rint(out * min(1, 32_000 / np.abs(out).max())).astype(np.int16), places


def curve(minutes: list[Samples]) -> None:
    print(f"{'twist':>6}{'over':>6}{'digits':>8}{'found':>8}{'heard before':>14}{'and after, of 23':>18}")
    alone = sum(map(multimon, minutes))
    for twist in (0, 7, -7):
        for over in (10, 6, 3, 0):
            rng = np.random.default_rng(over)
            count = found = before = after = 0
            for minute in minutes:
                mixed, places = with_digits(minute, over, twist, rng)
                digits = scan(mixed)
                count += len(places)
                found += sum(any(d.start < at + LENGTH and d.end > at for d in digits) for at in places)
                before += multimon(mixed)
                after += multimon(eliminate(mixed, 0, spans(digits)))
            left = 23 * max(0, after - alone) / count
            print(f"{twist:+6}{over:6}{count:8}{found / count:8.0%}{before - alone:14}{left:18.1f}", flush=True)


def main() -> None:
    if len(sys.argv) < 2 or not (shutil.which("sox") and shutil.which("multimon-ng")):
        sys.exit("usage: python -m benchmarks.audio.digits FOLDER...  (needs sox and multimon-ng)")
    parts = []
    for path in sorted(p for folder in sys.argv[1:] for p in Path(folder).rglob("*") if p.is_file()):
        try:
            reader = open_reader(path, RATE)
        except AudioError:
            continue
        if reader.channels == 1:
            parts += [reader.read(1 << 30), np.zeros(1600, np.int16)]
        reader.close()
    speech = np.concatenate(parts)
    minutes = [speech[at : at + MINUTE] for at in range(0, len(speech) - MINUTE, MINUTE)]
    curve(minutes[:: max(1, len(minutes) // MOST_MINUTES)][:MOST_MINUTES])
    seconds, spent, wrong = 0.0, time.process_time(), 0
    for speed in SPEEDS:
        places = np.arange(0, len(speech) - 1, speed)
        turned = np.interp(places, np.arange(len(speech)), speech).astype(np.int16)
        wrong += len(scan(turned))
        seconds += len(turned) / RATE
    print(f"{wrong} false digits in {seconds / 3600:.1f} hours")
    print(f"{seconds / (time.process_time() - spent):.0f} times real time, conversion of speed included")


if __name__ == "__main__":
    main()
