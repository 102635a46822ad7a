"""What `render` is asked for and what it answers; nothing here touches a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from fastagi.audio.levels import LevelFacts
from fastagi.domain.formats import bit_rate_for, check_format
from fastagi.errors import AudioError

MOST_SPANS = 500
"""Digit spans listed in the facts; the count is exact. A sink's JSON must not grow with somebody's finger on a key."""

Permit = Callable[[], bool]
"""Is a file still ours to write? Blocking."""


class FileCipher(Protocol):
    """What rendering needs of a cipher (`fastagi.cipher`)."""

    @property
    def scheme(self) -> str:
        """Its name, for the metadata."""

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        """Encrypt everything from `source` into `target`."""

    def plaintext_budget(self, max_bytes: int) -> int:
        """The most plain bytes whose encryption has at most `max_bytes`."""


@dataclass(frozen=True, slots=True)
class RawPiece:
    """Asterisk's files of one stretch of the recording.

    :param mixed: both sides; :param received: from the channel; :param sent: to it; empty where not recorded
    :param offset_seconds: when it began, since the recording's start; None joins it to the piece before
    :param gap_seconds: silence before it when it has no offset: a pause, which no silence limit judges
    """

    mixed: str = ""
    received: str = ""
    sent: str = ""
    offset_seconds: float | None = None
    gap_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """One finished file to be made.

    :param pieces: the raw files in order; a gap between two becomes silence
    :param tail_seconds: silence after the last one, as far as it is not longer than `most_seconds` with it
    :param most_seconds: by the clock it lasted so long
    :param target: the finished file. The caller has reserved the name (an empty file made with O_EXCL) and owns it:
        what is there is replaced, in one step, when the new file is synced
    :param file_format: codec; :param rate: Hz of the finished file
    :param bit_rate: bits a second of opus and mp3; 0 for what is usual
    :param raw_rate: Hz of the raw files; 0 takes the first one's; files of another rate are converted
    :param mode: ``mixed`` or ``separate`` (left received, right sent; the size and silence limits are ignored)
    :param dtmf_elim: take in-band digits out of both legs
    :param initial_silence_ms: nothing is kept before the first sound, nothing at all when none came in time; 0 for off
    :param max_silence_ms: the recording ends at last sound + this; 0 for off
    :param silence_dbfs: RMS below which a 10 ms frame is silence
    :param max_bytes: largest size of the finished file, encryption included; 0 for none
    :param max_seconds: the recording ends so long after its start; None for never
    :param silent: it was ended for silence: the file ends where that limit falls, also where no frames came so far
    :param cuts: spans (start, end) in seconds since the recording's start that are left out (pauses that are cut)
    :param pauses: spans in which silence is nobody's fault: kept, but not judged
    :param cipher: encrypts the finished file; None leaves it clear
    :param permit: asked before a file is begun and before it is put in its place: is that still this server's to do?
        None for yes
    """

    pieces: tuple[RawPiece, ...]
    target: str
    file_format: str = "alaw"
    rate: int = 8000
    bit_rate: int = 0
    raw_rate: int = 0
    mode: str = "mixed"
    dtmf_elim: bool = True
    initial_silence_ms: int = 0
    max_silence_ms: int = 0
    silence_dbfs: float = -48.0
    max_bytes: int = 0
    max_seconds: float | None = None
    silent: bool = False
    cuts: tuple[tuple[float, float], ...] = ()
    pauses: tuple[tuple[float, float], ...] = ()
    tail_seconds: float = 0.0
    most_seconds: float = math.inf
    cipher: FileCipher | None = None
    permit: Permit | None = None

    def __post_init__(self) -> None:
        check_format(self.file_format, self.rate, self.mode)
        bit_rate_for(self.file_format, self.rate, self.mode, self.bit_rate)
        if not self.pieces:
            raise AudioError(f"{self.target}: there is no raw file to make it from")

    @property
    def channels(self) -> int:
        return 2 if self.mode == "separate" else 1

    @property
    def byte_limit(self) -> int:
        """`max_bytes` where it counts; 0 for none."""
        return 0 if self.mode == "separate" else self.max_bytes

    @property
    def silence_limits(self) -> tuple[int, int]:
        """(initial, max) in milliseconds where they count; 0 for none."""
        return (0, 0) if self.mode == "separate" else (self.initial_silence_ms, self.max_silence_ms)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The finished file, synced and in its place.

    :param audio_seconds: its length; :param frames: samples per channel; :param bytes: size on disk
    :param sha256: of the file as it is on disk, encrypted or not
    :param limit: ``SILENCE`` or ``SIZE`` when the audio itself shows that this limit was reached, else empty
    :param no_sound: an initial limit was asked for and no sound came: the recording is empty
    :param salvaged: a raw file had not been closed and its header was mended
    :param digits: how many DTMF digits were removed
    :param digit_spans: where they were, (start, end) in seconds since the recording's start; at most `MOST_SPANS`
    :param level: of what was kept; :param received: of that leg; :param sent: of that leg (None: it was not recorded)
    :param one_sided: one leg was never heard while the other was
    :param clipped: samples (of each channel, at the raw rate) at full scale or beyond
    :param limited: they were beyond it in the sum of the legs, and have been made quieter; else they are cut off in the
        file, as they were when they came
    :param copied: the raw file already was what was asked for
    :param gaps: the silence between pieces, (start, end) in seconds of the finished file
    :param warnings: what could not be done as asked, for people
    """

    audio_seconds: float
    frames: int
    bytes: int
    sha256: str
    level: LevelFacts
    limit: str = ""
    no_sound: bool = False
    salvaged: bool = False
    digits: int = 0
    digit_spans: tuple[tuple[float, float], ...] = ()
    received: LevelFacts | None = None
    sent: LevelFacts | None = None
    one_sided: bool = False
    clipped: int = 0
    limited: bool = False
    copied: bool = False
    gaps: tuple[tuple[float, float], ...] = ()
    warnings: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """What is worth telling a sink, ready for JSON; the digits themselves are nowhere in it."""
        facts: dict[str, Any] = {"salvaged": self.salvaged, "silent": self.level.silent, "one_sided": self.one_sided}
        facts |= {"clipped": self.clipped, "limited": self.limited}
        facts["level"] = self.level.to_dict()
        if self.received is not None and self.sent is not None:
            facts["legs"] = {"received": self.received.to_dict(), "sent": self.sent.to_dict()}
        facts["dtmf"] = {"removed": self.digits, "spans": [list(span) for span in self.digit_spans]}
        if self.gaps:
            facts["gaps"] = [list(span) for span in self.gaps]
        if self.warnings:
            facts["warnings"] = list(self.warnings)
        return facts


def ranges(spans: Iterable[tuple[float, float]], rate: int, total: int) -> list[tuple[int, int]]:
    """Spans in seconds as sample ranges within `total`: sorted, joined, empty ones dropped."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        low, high = max(0, round(start * rate)), min(total, round(min(end, total / rate) * rate))
        if low >= high:
            continue
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def without(start: int, end: int, holes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of [start, end) once the sorted `holes` are taken out."""
    left: list[tuple[int, int]] = []
    for low, high in holes:
        if start < min(low, end):
            left.append((start, min(low, end)))
        start = max(start, high)
    if start < end:
        left.append((start, end))
    return left
