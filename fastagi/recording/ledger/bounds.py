"""The folders in which the files of a recording may lie; a side file that says otherwise is not believed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastagi.domain.recording import Recording
from fastagi.recording.asterisk import raw_files


@dataclass(frozen=True, slots=True)
class Bounds:
    """The folders of the settings.

    :param directory: finished files; :param spools: raw files, by Asterisk name
    """

    directory: Path
    spools: Mapping[str, Path]

    def fault(self, recording: Recording, *, adopted_anywhere: bool = False) -> str:
        """Return why the files of a recording are not where they must be; empty when they are. Blocking.

        :param adopted_anywhere: raw files that others named may lie outside of the spool
        """
        spool = self.spools.get(recording.asterisk)
        if spool is None:
            return f"there is no [[asterisk]] named {recording.asterisk!r} in the settings"
        if not self._in_directory(recording.file_path):
            return f"{recording.file_path} is not in the recordings directory {self.directory}"
        for path in (path for piece in recording.pieces for path in piece.paths):
            if recording.adopted and adopted_anywhere:
                continue
            raw = Path(path)
            if raw.parent != spool:
                return f"{path} is not in the spool {spool} of {recording.asterisk}"
            if not recording.adopted and raw_files.recording_id_of(raw) != recording.id:
                return f"{path} is no raw file of {recording.id}"
        return ""

    def _in_directory(self, path: str) -> bool:
        if not os.path.isabs(path) or os.path.normpath(path) != path or "\0" in path:
            return False
        root = os.path.realpath(self.directory)
        folder = os.path.realpath(os.path.dirname(path))
        return os.path.commonpath((root, folder)) == root and os.path.basename(path) != ""
