"""Copies a SQLite ledger consistently while its server goes on writing. For PostgreSQL there is pg_dump."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fastagi.errors import StoreError

PAGES = 2000
"""Pages copied between two progress reports: 8 MB."""


def back_up(source: Path, target: Path, *, progress: Callable[[int], None] = lambda percent: None) -> int:
    """Copy the ledger `source` to the new file `target`, which only its owner can read.

    The target is complete, checked and synced, or not there at all.

    :param progress: called with the percentage copied so far
    :returns: size of the copy in bytes
    :raises StoreError: there is no ledger, the target exists, or the copy cannot be made or is damaged
    """
    if not source.is_file():
        raise StoreError(f"{source}: there is no ledger: the server makes it at its first start")
    if target.exists():
        raise StoreError(f"{target}: is there already, and is left as it is")
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _copy(source, draft, progress)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        size = draft.stat().st_size
        os.link(draft, target)  # never overwrite a file that was put there meanwhile
    except FileExistsError:
        raise StoreError(f"{target}: is there already, and is left as it is") from None
    except OSError as exc:
        raise StoreError(f"{exc.filename or target}: {exc.strerror}") from None
    except sqlite3.Error as exc:
        raise StoreError(f"{source}: cannot be copied to {target}: {exc}") from None
    finally:
        draft.unlink(missing_ok=True)
    return size


def _copy(source: Path, draft: Path, progress: Callable[[int], None]) -> None:
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=30.0)) as there,
        closing(sqlite3.connect(draft)) as here,
    ):
        there.backup(
            here, pages=PAGES, progress=lambda _, left, all_: progress(100 * (all_ - left) // max(1, all_)), sleep=0.01
        )
        here.execute("PRAGMA journal_mode = DELETE")  # one file, without a -wal beside it
        found = here.execute("PRAGMA quick_check").fetchone()
        if found != ("ok",):
            raise StoreError(f"{source}: is damaged: {found[0] if found else 'it cannot be checked'}")
