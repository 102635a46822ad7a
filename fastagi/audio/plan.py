"""Order and result of `render`; nothing here touches a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from fastagi.audio.levels import LevelFacts
from fastagi.domain.formats import bit_rate_for, check_format
from fastagi.errors import AudioError

MOST_SPANS = 500
"""Most digit spans listed in the facts; their number stays exact. A caller's keypad must not inflate a sink's JSON."""

Permit = Callable[[], bool]
"""Return True while this server may write a file. Blocking."""


class FileCipher(Protocol):
    """Part of a cipher (`fastagi.cipher`) that rendering needs."""

    @property
    def scheme(self) -> str:
        """Name of the cipher, for the metadata."""

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        """Encrypt everything from `source` into `target`."""

    def plaintext_budget(self, max_bytes: int) -> int:
        """Return the most plain bytes whose encryption has at most `max_bytes`."""


@dataclass(frozen=True, slots=True)
class RawPiece:
    """Asterisk's files of one segment of the recording.

    :param mixed: both sides; :param received: from the channel; :param sent: to the channel; empty where not recorded
    :param offset_seconds: start of the segment since the recording's start; None joins it to the segment before
    :param gap_seconds: silence before a segment without offset: a pause, which no silence limit judges
    """

    mixed: str = ""
    received: str = ""
    sent: str = ""
    offset_seconds: float | None = None
    gap_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """Order for one finished file.

    :param pieces: the raw files of the segments in order; a gap between two segments becomes silence
    :param tail_seconds: silence after the last segment; shortened where the file would exceed `most_seconds`
    :param most_seconds: duration of the recording by the clock
    :param target: the finished file. The caller has reserved the name (an empty file made with O_EXCL) and owns it:
        the file there is replaced, in one step, when the new file is synced
    :param file_format: codec; :param rate: Hz of the finished file
    :param bit_rate: bits a second of opus and mp3; 0 for the usual one
    :param raw_rate: Hz of the raw files; 0 takes the first file's; files of another rate are converted
    :param mode: ``mixed`` or ``separate`` (left received, right sent; the size and silence limits are ignored)
    :param dtmf_elim: take in-band digits out of both legs
    :param initial_silence_ms: time for the first sound. Audio before that sound is cut; without a sound in time the
        recording is empty; 0 for off
    :param max_silence_ms: the recording ends so long after the last sound; 0 for off
    :param silence_dbfs: RMS below which a 10 ms frame is silence
    :param max_bytes: largest size of the finished file, encryption included; 0 for none
    :param max_seconds: the recording ends so long after its start; None for never
    :param silent: the recording was ended for silence: the file ends at that limit, even if frames came no further
    :param cuts: spans (start, end) in seconds since the recording's start that are left out (pauses that are cut)
    :param pauses: spans that are kept, but in which silence is not judged
    :param cipher: encrypts the finished file; None leaves it clear
    :param permit: tells whether this server may still write the file; called before the file is begun and before it
        gets its name; None for yes
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
        """`max_bytes` where the limit applies; 0 for none."""
        return 0 if self.mode == "separate" else self.max_bytes

    @property
    def silence_limits(self) -> tuple[int, int]:
        """Silence limits (initial, max) in milliseconds where they apply; 0 for none."""
        return (0, 0) if self.mode == "separate" else (self.initial_silence_ms, self.max_silence_ms)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Finished file, synced and in its place.

    :param audio_seconds: length of the audio; :param frames: samples per channel; :param bytes: size on disk
    :param sha256: of the file as it is on disk, encrypted or not
    :param limit: ``SILENCE`` or ``SIZE`` when the audio itself shows that this limit was reached, else empty
    :param no_sound: there was an initial limit and no sound came: the recording is empty
    :param salvaged: Asterisk had not closed a raw file and its header was mended
    :param digits: how many DTMF digits were removed
    :param digit_spans: spans of the digits, (start, end) in seconds since the recording's start; at most `MOST_SPANS`
    :param level: levels of the finished file; :param received: of that leg; :param sent: of that leg (None where it was
        not recorded)
    :param one_sided: one leg was silent throughout while the other was not
    :param clipped: samples (of each channel, at the raw rate) at full scale or beyond
    :param limited: the clipped samples were beyond full scale in the sum of the legs, and were made quieter; else they
        are cut off in the file, as they came
    :param copied: a raw file already had the wanted form and was copied
    :param gaps: the silence between segments, (start, end) in seconds of the finished file
    :param warnings: parts of the order that could not be followed, as text for people
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
        """Return the facts that sinks are told, ready for JSON; the digits themselves are not among them."""
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
    """Return spans in seconds as sample ranges within `total`: sorted, joined, empty ones dropped."""
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
    """Return the ranges that are left of [start, end) without the sorted `holes`."""
    left: list[tuple[int, int]] = []
    for low, high in holes:
        if start < min(low, end):
            left.append((start, min(low, end)))
        start = max(start, high)
    if start < end:
        left.append((start, end))
    return left
