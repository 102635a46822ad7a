"""The recorder's files: where Asterisk writes, how a finished file's name is taken, what is removed when.

Blocking functions; the recorder runs them in its file threads. Nothing here knows a state.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastagi.domain import naming
from fastagi.domain.recording import Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.exposed_files import folder_of, open_folder, remove_file
from fastagi.ownership import user_name

SECRET = "-secret"
"""In the name of a raw file that is clear only until its recording is encrypted: who finds it, and knows no more, must
not deliver it. The name is all that is certain to be beside the sound, on every disk and after every crash."""


def raw_segment(
    spool: Path,
    recording_id: str,
    number: int,
    spec: RecordingSpec,
    channel: str,
    uniqueid: str,
    *,
    reason: str = "",
    sides_swapped: bool = False,
) -> Segment:
    """The names Asterisk is told to write to. Only the id is in them, and `SECRET`: nothing that a caller said.

    :param number: 0 for the first stretch, 1 for the next one after a pause or a move
    """
    suffix = ".wav16" if spec.wideband else ".wav"
    stem = str(spool / f"{recording_id}{SECRET if spec.encryption else ''}{f'-{number}' if number else ''}")
    if spec.engine == "monitor":  # res_monitor's own naming; it never mixes by itself
        return Segment(
            "", f"{stem}-in.wav", f"{stem}-out.wav", channel, uniqueid, reason=reason, sides_swapped=sides_swapped
        )
    legs = (f"{stem}-rx{suffix}", f"{stem}-tx{suffix}") if spec.needs_legs else ("", "")
    return Segment(f"{stem}{suffix}", legs[0], legs[1], channel, uniqueid, reason=reason, sides_swapped=sides_swapped)


def next_number(pieces: Sequence[Segment]) -> int:
    """One that no raw file of these has: in place of one that is being written, another one would begin."""
    numbers = (re.search(r"-(\d+)(-(rx|tx|in|out))?\.\w+$", path) for piece in pieces for path in piece.paths)
    return max((int(found[1]) for found in numbers if found), default=0) + 1


def recording_id_of(path: Path) -> str | None:
    """The recording id in a raw file's name; None when it is not one of ours."""
    name = path.name
    if not name.startswith("rec-") or path.suffix not in (".wav", ".wav16"):
        return None
    return name[:30] if len(name) >= 30 else None


def reserve(directory: Path, relative: str, recording_id: str) -> tuple[str, bool]:
    """Take a finished file's name by creating it empty, so that no other can have it.

    :param relative: checked by `naming.relative_path`
    :returns: the absolute path, and whether the name had to be changed because it existed
    :raises OSError: the directory cannot be made or written
    """
    root = os.path.realpath(directory)
    wanted = os.path.join(root, relative)
    folder = os.path.dirname(wanted)
    if folder != root or not os.path.isdir(root):
        if os.path.commonpath((root, os.path.realpath(folder))) != root:
            raise PermissionError(13, "a link leads out of the recordings directory", folder)
        os.makedirs(folder, exist_ok=True)
    for path, renamed in ((wanted, False), (naming.distinct(wanted, recording_id), True)):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o640))
        except FileExistsError:
            continue
        return path, renamed
    raise FileExistsError(17, "that name is taken twice", wanted)


def folder_fault(directory: Path, folder: str) -> str:
    """Return why no name in that folder could be reserved now, without its path; empty where one could. Makes
    nothing.
    """
    root = os.path.realpath(directory)
    if os.path.commonpath((root, os.path.realpath(folder))) != root:
        return "a link leads out of the recordings directory"
    there = folder
    while not os.path.lexists(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        return "what stands there is no directory"
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        return f"{user_name()} may not write into it"
    return ""


def release(path: str) -> None:
    """Give a reserved name back: remove it only while it is still the empty file that reserved it.

    Never raises: what cannot be removed (its folder has been replaced, is read-only now) has lost no recording.
    """
    try:
        if os.lstat(path).st_size == 0:
            remove_file(path)
    except OSError:
        pass


def remove(paths: tuple[str, ...]) -> None:
    """Remove Asterisk's own files; what is already gone is gone."""
    for path in paths:
        remove_file(path)


def size(path: str) -> int:
    """Bytes, or -1 when it is not there, or is no file but a link to one, or a folder."""
    try:
        found = os.lstat(path)
    except OSError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def sizes(paths: tuple[str, ...]) -> tuple[int, ...]:
    """`size` of each."""
    return tuple(size(path) for path in paths)


def spool_fault(spool: Path) -> str:
    """Return the fault of the folder that Asterisk should write to, as this server sees it; empty for none."""
    try:
        mode = os.stat(spool).st_mode
    except OSError:
        return f"the spool directory {spool} does not exist: create it, writable for Asterisk"
    if not stat.S_ISDIR(mode):
        return f"the spool {spool} is no directory"
    if not os.access(spool, os.R_OK | os.W_OK | os.X_OK):
        return f"this server may not read and write the spool directory {spool}: put its user in Asterisk's group"
    if full(spool):
        return f"the disk of the spool directory {spool} is full: make room"
    return ""


STEP_BYTES = 32_768
"""Asterisk writes so much at a time: where there is less room, the next of it is lost, and nobody says so."""


def full(folder: Path) -> bool:
    """Return whether the disk has no room for what Asterisk writes next."""
    try:
        return free_bytes(folder) < STEP_BYTES
    except OSError:
        return False  # what else is wrong with it is noticed elsewhere


HEADER_BYTES = 44
EMPTY_LEG_SECONDS = 0.2
"""Asterisk closes a recording's files one after the other within microseconds."""


def closed(paths: tuple[str, ...]) -> bool:
    """Return whether Asterisk has closed all files of a segment.

    A closed file has its sizes in its header. A leg on which nothing was ever heard keeps zeros there for ever: it is
    believed closed once another file of the piece has been for a moment.
    """
    from fastagi.audio import is_complete  # with it comes numpy, which commands that only sync or name files do without

    whole = [path for path in paths if is_complete(path)]
    rest = [path for path in paths if path not in whole]
    if not rest:
        return bool(paths)
    if not whole or any(size(path) > HEADER_BYTES for path in rest):
        return False
    return time.time() - last_write(tuple(whole)) >= EMPTY_LEG_SECONDS


def last_write(paths: tuple[str, ...]) -> float:
    """Return the time of the last write to any of the files, unix seconds by the file system's clock; 0 when there
    is none.
    """
    latest = 0.0
    for path in paths:
        try:
            latest = max(latest, os.lstat(path).st_mtime)
        except OSError:
            continue
    return latest


@contextlib.contextmanager
def listed(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The entries of a folder, which is reached over no link of another user. Their `path` is their name only.

    :raises OSError: it cannot be read
    """
    fd = open_folder(folder)
    try:
        with os.scandir(fd) as entries:
            yield entries
    finally:
        os.close(fd)


def sync(folder: Path) -> None:
    """Make names in that folder durable."""
    fd = open_folder(folder)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


SET_ASIDE = "set-aside"
"""Folder in the spool for what cannot be saved: an operator looks, nothing removes it."""


def set_aside(paths: tuple[str, ...], reason: str) -> list[Path]:
    """Move files into `set-aside` beside them, each with a `.reason`; none is ever overwritten or deleted.

    :returns: where they are now; of those that are gone, nothing
    :raises OSError: `set-aside` is a link or no folder, or may not be written
    """
    moved: list[Path] = []
    for path in map(Path, paths):
        try:
            moved.append(_set_aside(path, reason))
        except FileNotFoundError:
            continue
    return moved


def _set_aside(path: Path, reason: str) -> Path:
    """:raises FileNotFoundError: it is gone"""
    with folder_of(path) as (folder, name):
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        with contextlib.suppress(FileExistsError):
            os.mkdir(SET_ASIDE, 0o750, dir_fd=folder)
        aside = os.open(SET_ASIDE, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            target, number = name, 0
            while _taken(target, aside) or _taken(f"{target}.reason", aside):
                number += 1
                target = f"{path.stem}.{number}{path.suffix}"
            os.rename(name, target, src_dir_fd=folder, dst_dir_fd=aside)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(f"{target}.reason", flags, 0o640, dir_fd=aside), "w") as file:
                file.write(reason.strip() + "\n")
        finally:
            os.close(aside)
    return path.parent / SET_ASIDE / target


def _taken(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def free_bytes(path: Path) -> int:
    """Free disk where `path` is (or its nearest parent that exists)."""
    while not path.exists() and path != path.parent:
        path = path.parent
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def relative_to(path: str, directory: Path) -> str:
    """A finished file's path as it was reserved below the recordings directory."""
    return os.path.relpath(path, directory.resolve())
