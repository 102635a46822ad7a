"""Side files as they were before they had a folder of their own: unsigned, in the spool, where Asterisk may write.


Blocking. They are read once, at the first start after the upgrade, and little of them is believed: `acceptable` says
what.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fastagi.domain.recording import Recording
from fastagi.domain.states import Phase
from fastagi.recording.asterisk import raw_files
from fastagi.recording.ledger import spill_file
from fastagi.recording.ledger.bounds import Bounds
from fastagi.recording.ledger.spill_file import SUFFIX, SpillFile, SpillFolder


def find(folders: Iterable[Path]) -> list[Path]:
    """Names of side files in these folders, oldest recording first. A folder that cannot be read has none."""
    found: list[Path] = []
    for folder in dict.fromkeys(folders):
        try:
            with raw_files.listed(folder) as entries:
                found += [folder / e.name for e in entries if e.name.startswith("rec-") and e.name.endswith(SUFFIX)]
        except OSError:
            continue
    return sorted(found, key=lambda path: path.name)


def read(path: Path, sides: SpillFolder) -> SpillFile:
    """Return what it holds, without the key.

    :param sides: where they are now: knows the server's user

    :raises ValueError: it is no side file, or not of the server's own user
    :raises PermissionError: a link, a hard link, no regular file, or not readable; :raises OSError: it cannot be read
    """
    return spill_file.parse(path, sides.read_owned(path), with_key=False)


def acceptable(side: SpillFile, there: Recording | None, bounds: Bounds) -> SpillFile:
    """Return what may go into the ledger of an unsigned side file.

    A finished recording is finished again, from its raw files: what the copy says of its file is not believed. The
    ledger's word on a hold and on a deletion stays.

    :param there: the recording as the ledger has it
    :raises ValueError: its files are not where that Asterisk and this server have theirs
    """
    copy = side.recording
    known = there is not None and (copy.file_path, copy.pieces) == (there.file_path, there.pieces)
    fault = "" if known else bounds.fault(copy)
    if fault:
        raise ValueError(fault)
    if copy.phase is Phase.FINISHED:
        copy = copy.changed(phase=Phase.FINISHING, finished_at=None, audio_seconds=None, bytes=None, sha256="")
    copy = copy.changed(
        deleted_at=None if there is None else there.deleted_at,
        legal_hold=copy.legal_hold if there is None else there.legal_hold,
        file_path=os.path.normpath(copy.file_path),
    )
    return replace(side, recording=copy, key=None)
