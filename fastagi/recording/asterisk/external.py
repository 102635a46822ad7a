"""A recording that somebody else started, as its file tells: what it is called, what it becomes, when it is whole.

Rules and blocking looks at files. Whose it is and when it ends is `adoption`'s to find out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastagi.ami.actions import MixMonitorRow
from fastagi.audio import LevelFacts, Rendered, RenderPlan, render
from fastagi.audio.finalfile import FinalFile
from fastagi.audio.levels import LOWEST_DBFS
from fastagi.audio.reader import HEADERLESS
from fastagi.domain.formats import check_format
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.errors import AudioError, BadArgument
from fastagi.recording.asterisk import raw_files
from fastagi.recording.asterisk.render_plan import facts

READABLE = (".wav", ".wav16", ".wav49", *HEADERLESS)
"""Suffixes (lower case) of what becomes a finished file like any other; the rest is delivered as Asterisk wrote it."""

BYTES_A_SECOND = {".gsm": 1650, ".wav49": 1625, ".wav": 16_000, ".wav16": 32_000, ".ulaw": 8000, ".alaw": 8000}
BYTES_A_SECOND |= {".sln": 16_000, ".sln16": 32_000, ".raw": 16_000, ".g722": 8000, ".g729": 1000}
SLOWEST = 1000

FLUSH_BYTES = 32_768
"""Asterisk's buffer: the file grows by so much at a time in any format: every 2 s of .wav, every 20 s of .gsm."""

SETTLED_SECONDS = 1.0
"""A file without a header is whole when nothing was written for so long after the end: Asterisk closes within 5 ms."""

APPENDED_SECONDS = 0.3
"""So long after the end its header is believed: one that is appended to has a true one until the first flush."""

_OURS = re.compile(r"rec-[0-9a-hjkmnp-tv-z]{26}(-secret)?(-\d{1,4})?(-(rx|tx|in|out))?")
_UNSAFE = re.compile(r"[^\w.+@=-]")


@dataclass(frozen=True, slots=True)
class Found:
    """The files of one MixMonitor row, with their suffixes as far as this server can see them.

    :param bytes: of the first, -1 when this server cannot see it
    """

    piece: Segment
    suffix: str
    bytes: int


def is_ours(row: MixMonitorRow) -> bool:
    """Return whether a fastagi server started it, this one or another: its file bears a recording's id."""
    return bears_our_id((row.file or row.received or row.sent).rpartition("/")[2])


def bears_our_id(stem: str) -> bool:
    """Return whether a name without suffix is that of a raw file of a fastagi server."""
    return _OURS.fullmatch(stem) is not None


def locate(row: MixMonitorRow, named: str, channel: str, uniqueid: str, taken: frozenset[str] = frozenset()) -> Found:
    """The files of a row of `mixmonitor list`, which leaves the suffixes out. Blocking.

    :param named: the channel's MIXMONITOR_FILENAME, the file of its last MixMonitor; empty when it is not known
    :param taken: files of other MixMonitors: two may differ in the suffix only
    """
    mixed, received, sent = (
        _with_suffix(stem, named, taken) if stem else "" for stem in (row.file, row.received, row.sent)
    )
    piece = Segment(mixed, received, sent, channel=channel, uniqueid=uniqueid, monitor_id=row.id)
    first = piece.paths[0]
    return Found(piece, Path(first).suffix, raw_files.size(first))


def _with_suffix(stem: str, named: str, taken: frozenset[str]) -> str:
    if named not in taken and named.startswith(stem + ".") and "/" not in named[len(stem) :]:
        return named
    folder, _, name = stem.rpartition("/")
    newest, when = stem + ".wav", -1.0
    try:
        with os.scandir(folder or "/") as entries:
            for entry in entries:
                rest = entry.name[len(name) + 1 :]
                if not entry.name.startswith(name + ".") or not rest or "." in rest or entry.path in taken:
                    continue
                if entry.is_file(follow_symlinks=False):
                    written = entry.stat(follow_symlinks=False).st_mtime
                    if written > when:
                        newest, when = entry.path, written
    except OSError:
        return newest  # nobody here can see it: .wav is the best guess
    return newest


_KEPT = ("file_format", "rate", "recording_mode", "bit_rate", "pause_mode")
"""The defaults that a recording of somebody else takes."""


def spec_of(found: Found, defaults: Mapping[str, Any]) -> RecordingSpec:
    """Return the parameters of finishing: the settings', without limits; digits stay in unless the settings name
    `dtmf_elim`.
    """
    both = bool(found.piece.received and found.piece.sent)
    wanted = {k: v for k, v in defaults.items() if k in _KEPT}
    wanted["dtmf_elim"] = bool(defaults.get("dtmf_elim", False)) and both
    if not both:
        wanted["recording_mode"] = "mixed"
    try:
        check_format(wanted.get("file_format", "alaw"), wanted.get("rate", 8000), wanted.get("recording_mode", "mixed"))
    except BadArgument:
        wanted = {"dtmf_elim": wanted["dtmf_elim"]}
    return RecordingSpec(**wanted)


def readable(suffix: str) -> bool:
    """Return whether a file with that suffix can be converted to another format."""
    return suffix.lower() in READABLE


def has_header(path: Path) -> bool:
    """Return whether a file with that suffix has a WAV header, which tells when the file is whole."""
    return path.suffix.lower() in (".wav", ".wav16", ".wav49")


def name_of(found: Found, spec: RecordingSpec) -> tuple[str, str]:
    """(name as Asterisk was told, path of the finished file below the recordings directory)."""
    name = Path(found.piece.paths[0]).name
    stem = _UNSAFE.sub("_", name.removesuffix(found.suffix)).strip(".")[:150] or "unnamed"
    suffix = spec.form.suffix if readable(found.suffix) else _UNSAFE.sub("_", found.suffix)[:16]
    return name[:200], stem + suffix


def audio_seconds(path: str, size: int) -> float:
    """Return about how much sound so many bytes hold, in seconds; the header is counted in."""
    return max(0, size) / BYTES_A_SECOND.get(Path(path).suffix.lower(), SLOWEST)


def growth_seconds(path: str) -> float:
    """Return the seconds between two growths of a file of that format while audio flows."""
    suffix = Path(path).suffix
    rate = 1625 if suffix == ".WAV" else BYTES_A_SECOND.get(suffix.lower(), SLOWEST)
    return FLUSH_BYTES / rate


def slower_seconds(path: str) -> float:
    """Return the seconds by which a file of that format may stand still longer than a .wav; 0 where it grows as
    often.
    """
    return max(0.0, growth_seconds(path) - growth_seconds("any.wav"))


def closed(paths: tuple[str, ...], ended_seconds: float) -> bool:
    """Return whether Asterisk has closed all files of a recording that ended so many seconds ago. Blocking."""
    wav = tuple(p for p in paths if p.lower().endswith((".wav", ".wav16", ".wav49")))
    rest = tuple(p for p in paths if p not in wav)
    if wav and not (ended_seconds >= APPENDED_SECONDS and raw_files.closed(wav)):
        return False
    return not rest or ended_seconds >= SETTLED_SECONDS


def finish(recording: Recording, plan: RenderPlan) -> Rendered:
    """Make the finished file. Asterisk's own stays as it is: it is somebody else's. Blocking.

    :raises AudioError: there is no file, or it cannot be read; :raises DiskFull: no room
    """
    if not recording.facts.steering.as_recorded:
        return render(plan)
    source = recording.pieces[0].paths[0]
    size = raw_files.size(source)
    if size <= 0:
        raise AudioError(f"{source}: " + ("is empty" if size == 0 else "this server cannot see it"))
    with FinalFile(plan.target, permit=plan.permit) as final:
        final.take(source)
        size = final.seal()
        digest = final.commit()
    seconds = recording.duration_seconds or audio_seconds(source, size)
    unheard = LevelFacts(LOWEST_DBFS, LOWEST_DBFS, 0.0)
    return Rendered(audio_seconds=seconds, frames=0, bytes=size, sha256=digest, level=unheard, copied=True)


def heard(recording: Recording, rendered: Rendered) -> dict[str, Any]:
    """Return the facts that finishing found in the sound; none where the file was only copied."""
    return {} if recording.facts.steering.as_recorded else facts(rendered)


def removable(recording: Recording, spool: Path | None) -> tuple[str, ...]:
    """Raw files that may go once the finished file is safe: of an adopted recording only what lies in our spool."""
    paths = tuple(p for piece in recording.pieces for p in piece.paths)
    if not recording.adopted:
        return paths
    return tuple(p for p in paths if spool is not None and Path(p).parent == spool)
