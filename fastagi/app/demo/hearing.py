"""Reports on a finished file: codec, length, level, checksum, and how to listen to it."""

from __future__ import annotations

import hashlib
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import soundfile

from fastagi.audio import Levels

CODECS = {"ALAW": "A-law (G.711)", "ULAW": "µ-law (G.711)", "PCM_16": "16-bit PCM"}
PLAYERS = ("play", "aplay", "paplay", "ffplay", "mpv", "vlc")


@dataclass(frozen=True, slots=True)
class LevelMonitor:
    """The measures of one file. Levels are in dBFS, over both sides."""

    codec: str
    rate: int
    channels: int
    seconds: float
    rms_dbfs: float
    peak_dbfs: float
    active_seconds: float
    bytes: int
    sha256: str


def listen(file: Path) -> LevelMonitor:
    """Measure a file. Reads all of it, which is short.

    :raises OSError: it cannot be read
    """
    with soundfile.SoundFile(file) as opened:
        samples = opened.read(dtype="int16")
        levels = Levels(opened.samplerate)
        levels.feed(samples)
        facts = levels.facts()
        return LevelMonitor(
            codec=CODECS.get(opened.subtype, opened.subtype),
            rate=opened.samplerate,
            channels=opened.channels,
            seconds=round(len(samples) / opened.samplerate, 2),
            rms_dbfs=facts.rms_dbfs,
            peak_dbfs=facts.peak_dbfs,
            active_seconds=facts.active_seconds,
            bytes=file.stat().st_size,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        )


def how_to_listen(file: Path) -> str:
    """Return a command for this machine, or the remedy when it has no player."""
    for player in PLAYERS:
        if shutil.which(player):
            options = " -autoexit -nodisp" if player == "ffplay" else ""
            return f"{player}{options} {shlex.quote(str(file))}"
    return f"any player opens it; from your own machine: scp {shlex.quote(f'HOST:{file}')} ."
