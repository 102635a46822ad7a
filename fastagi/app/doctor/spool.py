"""Proves that this server and Asterisk see the same spool: Asterisk reads and writes a file there.

`file convert` (CLI, res_convert) makes Asterisk read a small WAV of the doctor's and write another; both are removed.
Without the right `command`, the dialplan function AST_CONFIG reads a small file through `Getvar`. Measured on 16.28 and
22.10; STAT and FILE, which would be simpler, are refused to manager users unless `live_dangerously` is on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import secrets
import wave
from pathlib import Path
from typing import BinaryIO

from fastagi.app.doctor.finding import Change, Finding, Findings, Fix, Reporter
from fastagi.app.doctor.session import Session, text
from fastagi.exposed_files import create_file, open_file, remove_file
from fastagi.ownership import user_name

HEARD = "fastagi-doctor"
"""First part of the name of each file that is written. The rest is random, so that no link can wait there."""

MODE = 0o644
"""Permission bits that let Asterisk's user read the file, whatever the umask is."""


async def same_spool(say: Reporter, session: Session, spool: Path) -> Findings:
    """Check that Asterisk reads and writes where this server does."""
    fault = await asyncio.to_thread(fault_here, spool)
    if fault:
        yield say.fail("spool", *fault)
        return
    nonce = secrets.token_hex(8)
    sent, back = spool / f"{HEARD}-{nonce}-in.wav", spool / f"{HEARD}-{nonce}-out.wav"
    try:
        try:
            await asyncio.to_thread(_write_wav, sent)
        except OSError as exc:
            yield say.fail("spool", f"{spool}: {exc.strerror}", f"make {spool} writable for this server's user")
            return
        answer = await session.ask("Command", Command=f'file convert "{sent}" "{back}"')
        said = " ".join(str(answer.content or "").split())
        message = text(answer.message).lower()
        if "permission denied" in message or "no such command" in said.lower():
            async for finding in _read_only(say, session, spool, nonce):
                yield finding
        elif "input file" in said.lower():
            yield say.fail(
                "spool",
                f"Asterisk does not see a file that this server has just written into {spool}",
                "both must see the same folder under the same path (one machine, a bind mount, or a shared file "
                "system), and Asterisk's user must be able to read there",
            )
        elif "output file" in said.lower():
            yield say.fail(
                "spool",
                f"Asterisk may not write into {spool}",
                f"install -d -o asterisk -g asterisk -m 2770 {spool}",
            )
        else:
            finding, owner = await asyncio.to_thread(_came_back, say, back, spool, said)
            yield finding
            if owner == os.geteuid():
                yield _same_user(say, owner)
    finally:
        await asyncio.to_thread(_remove, sent, back)


def fault_here(spool: Path) -> tuple[str, str] | tuple[str, str, Fix] | None:
    """Return the spool's fault before Asterisk is queried, and the remedy. Blocking."""
    make = f"install -d -o asterisk -g asterisk -m 2770 {spool}"
    if not spool.exists():
        return f"{spool} does not exist", make, Fix(Change.MAKE, str(spool), user="asterisk", mode=0o2770)
    if not spool.is_dir():
        return f"{spool} is no directory", make
    if not os.access(spool, os.R_OK | os.W_OK | os.X_OK):
        me = user_name()
        return f"{me} may not read and write {spool}", f"usermod -aG asterisk {me}"
    return None


def _write_wav(path: Path) -> None:
    with _created(path) as file, wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(1600))


def _write_config(path: Path, nonce: str) -> None:
    with _created(path) as file:
        file.write(f"[fastagi]\nvalue={nonce}\n".encode())


def _created(path: Path) -> BinaryIO:
    """Create a file that Asterisk may read.

    :raises FileExistsError: something has that name
    """
    fd = create_file(path)
    os.fchmod(fd, MODE)
    return os.fdopen(fd, "wb")


def _same_user(say: Reporter, user: int) -> Finding:
    """Warn when Asterisk runs as the same user: it could then read keys, the ledger and finished files."""
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return say.warn(
        "user",
        f"Asterisk runs as this server's own user, {name}: who gets into Asterisk can change recordings and read keys",
        "give the server a user of its own, in Asterisk's group (deploy/fastagi.service has the commands)",
    )


def _came_back(say: Reporter, back: Path, spool: Path, said: str) -> tuple[Finding, int | None]:
    """Return the finding about the file that Asterisk wrote, and the owner of the file."""
    if not os.path.lexists(back):
        finding = say.fail(
            "spool",
            f"Asterisk wrote a file into {spool}, and this server does not see it" + (f" ({said})" if said else ""),
            "both must see the same folder under the same path, not two folders of one name",
        )
        return finding, None
    try:
        with os.fdopen(open_file(back), "rb") as file:
            owner = os.fstat(file.fileno()).st_uid
            data = file.read(4)
        remove_file(back)
    except OSError as exc:
        finding = say.fail(
            "spool",
            f"{exc.strerror}: a file that Asterisk wrote into {spool}",
            "put the server's user into Asterisk's group, and the folder's mode to 2770",
        )
        return finding, None
    if not data.startswith(b"RIFF"):
        return say.fail("spool", f"what Asterisk wrote into {spool} is no WAV", "load format_wav"), owner
    return say.ok("spool", f"{spool}: Asterisk read a file there and wrote one, and this server removed it"), owner


async def _read_only(say: Reporter, session: Session, spool: Path, nonce: str) -> Findings:
    probe = spool / f"{HEARD}-{nonce}.conf"
    try:
        await asyncio.to_thread(_write_config, probe, nonce)
        answer = await session.ask("Getvar", Variable=f"AST_CONFIG({probe},fastagi,value)")
        if text(answer.value) == nonce:
            yield say.warn(
                "spool",
                f"{spool}: Asterisk reads what this server writes there; whether it may write was not tried",
                "with the right command it is tried; or place a test call",
            )
        else:
            yield say.fail(
                "spool",
                f"Asterisk does not see a file that this server has just written into {spool}",
                "both must see the same folder under the same path, and Asterisk's user must be able to read there",
            )
    except OSError as exc:
        yield say.fail("spool", f"{probe}: {exc.strerror}", f"make {spool} writable for this server's user")
    finally:
        await asyncio.to_thread(_remove, probe)


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            remove_file(path)
