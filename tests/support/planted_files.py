"""Files that somebody with write access to a spool can plant there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NOBODY = 65534


def foreign_link(path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that another user than the server's has made: given away by root, else the server's user is said to be
    another one."""
    path.symlink_to(target)
    if os.geteuid() == 0:
        os.lchown(path, NOBODY, NOBODY)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
