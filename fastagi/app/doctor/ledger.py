"""Checks the ledger: reachable, of this version's schema, writable. Nothing is written, nothing is migrated."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from fastagi.app.doctor import rights
from fastagi.app.doctor.finding import Change, Finding, Findings, Fix, Reporter, Status
from fastagi.app.doctor.serving_user import holder
from fastagi.app.keyfile import key_file, opens_the_ledger
from fastagi.cipher import MasterKey
from fastagi.errors import CipherError, StoreDamaged, StoreDown, StoreError
from fastagi.ownership import user_name
from fastagi.recording.ledger import old_spill_file
from fastagi.settings import Settings
from fastagi.store.migrate import revision
from fastagi.store.offline import OfflineLedger
from fastagi.store.schema import HEAD, recording, recording_key
from fastagi.store.sqlite import path_of

LAST_RECORDINGS = 100

CHECK_SECONDS = 10.0
"""Seconds for checking the file; a larger ledger is checked in part."""


async def examine(settings: Settings) -> Findings:
    """Yield the findings about `[store]`."""
    say = Reporter("store")
    url = settings.store.url
    waiting = await asyncio.to_thread(_side_files, settings)
    if waiting:
        yield say.warn(
            "side files",
            f"{sum(waiting.values())} recordings wait for the ledger, in {', '.join(map(str, waiting))}",
            "bring the database back, or start the server; do not delete *.journal: until then they are the ledger",
        )
    if url.startswith("sqlite:///"):
        path = path_of(url)
        faults = await asyncio.to_thread(lambda: list(_faults_of_files(say, path)))
        for fault in faults:
            yield fault
        if any(fault.status is Status.FAIL for fault in faults) or not await asyncio.to_thread(path.exists):
            return
        who, _ = await asyncio.to_thread(holder, path)
        if who:
            yield say.ok("server", f"{who} has it")
    try:
        async with OfflineLedger(url, any_schema=True) as ledger:
            found = await ledger.read(revision)
            yield _shape(say, ledger.shown, found)
            if url.startswith("sqlite"):
                await ledger.read(_sound, ledger.shown)
            if found == HEAD:
                async for finding in _keys(ledger, key_file(settings)):
                    yield finding
                async for finding in _last(ledger, settings):
                    yield finding
            if not url.startswith("sqlite"):
                yield await _may_write(say, ledger)
    except StoreDamaged as exc:
        yield say.fail("damaged", exc.fault, exc.REMEDY)
    except StoreDown as exc:
        yield say.fail("reachable", str(exc), "is the database up, and are user, password and host in store.url right?")
    except StoreError as exc:
        yield say.fail("reachable", str(exc), "look at store.url")


def _side_files(settings: Settings) -> dict[Path, int]:
    """Count the rows in each folder of side files that the ledger does not have yet; empty folders are left out."""
    folders = [
        settings.recordings.side_folder,
        *(section.spool for section in settings.asterisk),
        settings.recordings.directory,
    ]
    found = {folder: len(old_spill_file.find([folder])) for folder in dict.fromkeys(folders)}
    return {folder: count for folder, count in found.items() if count}


def _faults_of_files(say: Reporter, path: Path) -> Iterator[Finding]:
    """Check the files of an SQLite ledger before it is opened; also yields the finding when there is none yet."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        make = Fix(Change.MAKE, str(path.parent), user=user_name(), mode=0o700)
        fix = rights.give(path.parent) if folder == path.parent else make
        yield say.fail("writable", f"{user_name()} may not write into {folder}", str(make), fix)
        return
    yield from rights.ledger_files(path)
    if not path.exists():
        yield say.ok("ledger", f"{path} is made at the first start")


def _shape(say: Reporter, shown: str, found: str | None) -> Finding:
    if found == HEAD:
        return say.ok("schema", f"{shown}: schema {found}, up to date")
    if found is None:
        return say.ok("schema", f"{shown}: empty; the tables are made at the first start")
    if found < HEAD:
        return say.warn(
            "schema", f"{shown}: schema {found}", f"the next start brings it to {HEAD}: make a backup before"
        )
    return say.fail("schema", f"{shown}: schema {found}, this fastagi knows {HEAD}", "upgrade fastagi")


async def _keys(ledger: OfflineLedger, master: Path) -> Findings:
    count = await ledger.read(_count_keys)
    if count and not await asyncio.to_thread(master.exists):
        yield Reporter("key").fail(
            "master key",
            f"{master} is not there, but the ledger has the keys of {count} encrypted recordings",
            "put the backup of it back before the server makes a new one: no other can open them",
        )
    elif count and not await _opens(master, ledger):
        yield Reporter("key").fail(
            "master key",
            f"{master} is not the key that the ledger's {count} encrypted recordings need",
            "let [recordings] key_file name the one that the ledger was written with, or put the backup of it back",
        )


async def _last(ledger: OfflineLedger, settings: Settings) -> Findings:
    """Check this user's rights on the last recordings. Those of other servers are on other disks."""
    node = "" if settings.store.url.startswith("sqlite") or settings.recordings.shared else settings.store.node
    paths = await ledger.read(_last_paths, node)
    found = await asyncio.to_thread(lambda: list(rights.of_recordings(settings.recordings.directory, paths)))
    for finding in found:
        yield finding


def _last_paths(conn: sa.Connection, node: str) -> list[str]:
    own = recording.c.node == node if node else sa.true()
    last = sa.select(recording.c.file_path).where(own, recording.c.deleted_at.is_(None))
    return list(conn.execute(last.order_by(recording.c.id.desc()).limit(LAST_RECORDINGS)).scalars())


async def _opens(master: Path, ledger: OfflineLedger) -> bool:
    try:
        return await opens_the_ledger(await asyncio.to_thread(MasterKey.load_or_create, master), ledger.read)
    except CipherError:
        return True  # an invalid key is reported by the check of the file


def _sound(conn: sa.Connection, shown: str) -> None:
    """Check the file for `CHECK_SECONDS` at most.

    :raises StoreDamaged: SQLite finds it damaged
    """
    raw: sqlite3.Connection = conn.connection.dbapi_connection  # type: ignore[assignment]
    deadline = time.monotonic() + CHECK_SECONDS
    raw.set_progress_handler(lambda: int(time.monotonic() > deadline), 200_000)
    try:
        (found,) = raw.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return  # too large to be checked whole
        raise
    finally:
        raw.set_progress_handler(None, 0)
    if found != "ok":
        raise StoreDamaged(shown, " ".join(str(found).split())[:200])


def _count_keys(conn: sa.Connection) -> int:
    return int(conn.execute(sa.select(sa.func.count()).select_from(recording_key)).scalar_one())


async def _may_write(say: Reporter, ledger: OfflineLedger) -> Finding:
    version, create = await ledger.read(_rights)
    if create:
        return say.ok("rights", f"PostgreSQL {version}, may make tables")
    return say.fail(
        "rights", f"PostgreSQL {version}: the user may not make tables", "GRANT CREATE ON SCHEMA public TO …"
    )


def _rights(conn: sa.Connection) -> tuple[str, bool]:
    row = conn.execute(
        sa.text("SELECT current_setting('server_version'), has_schema_privilege(current_schema(), 'CREATE')")
    ).one()
    return str(row[0]).split(" ")[0], bool(row[1])
