"""Checks this machine: directories and their free space, the ports, the master key, the user."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import socket
import stat
import tempfile
from pathlib import Path

import aiohttp

from fastagi.agi import descriptors
from fastagi.agi.listening import bind
from fastagi.app.doctor import rights
from fastagi.app.doctor.finding import Change, Finding, Findings, Fix, Reporter
from fastagi.app.doctor.serving_user import UNIT, of_unit
from fastagi.app.keyfile import key_file
from fastagi.app.room import others, sessions_that_fit
from fastagi.audio.codecs import machine_libraries
from fastagi.delivery.http_client import bounded_session, read_at_most
from fastagi.errors import ConfigError
from fastagi.handlers.ping import GREETING, ROUTE
from fastagi.ownership import user_name
from fastagi.settings import Settings, discover

ANSWER_SECONDS = 2.0

READY_BYTES = 1_000_000
"""Most bytes of a `/readyz` answer: some hundred for each Asterisk and folder. Another program may have the port."""

RAW_BYTES_PER_SECOND = 3 * 16_000
"""Bytes per second while a call lasts: mixed and both legs, 8 kHz 16-bit."""

FINISHED_BYTES_PER_SECOND = 8_000
"""Bytes per second of a finished file: A-law, mono."""


async def examine(settings: Settings) -> Findings:
    """Yield all findings about this machine: everything but Asterisk, ledger and sinks."""
    async for finding in _user(settings):
        yield finding
    for path in dict.fromkeys(section.spool for section in settings.asterisk):
        if path.is_dir():
            yield await asyncio.to_thread(_room, "spool", path, settings.recordings.min_free_mb, RAW_BYTES_PER_SECOND)
    directory = settings.recordings.directory
    yield await asyncio.to_thread(_writable, directory)
    for finding in await asyncio.to_thread(lambda: list(rights.folders(directory))):
        yield finding
    yield await asyncio.to_thread(
        _room, "recordings", directory, settings.recordings.min_free_mb, FINISHED_BYTES_PER_SECOND
    )
    yield _descriptors(settings)
    yield await asyncio.to_thread(_codecs, str(settings.recordings.defaults.get("file_format", "")))
    yield await _agi_port(settings)
    yield await asyncio.to_thread(_agi_key, settings)
    if settings.http.enabled:
        async for finding in _http_port(settings):
            yield finding
    yield await asyncio.to_thread(rights.master_key, key_file(settings))
    open_file = await asyncio.to_thread(_open_settings)
    if open_file is not None:
        yield open_file


def _codecs(usual: str) -> Finding:
    """Check the codecs.

    :param usual: the file_format of recordings that name none
    """
    say = Reporter("codecs")
    libraries = list(machine_libraries())
    missing = {name: package for name, _, package, there in libraries if not there}
    if not missing:
        return say.ok("libraries", f"{' and '.join(library for _, library, _, _ in libraries)} are there")
    text = f"{' and '.join(missing)} files take two to three times the CPU time without {', '.join(missing.values())}"
    if usual in missing:
        return say.warn("libraries", text, f"apt-get install {' '.join(missing.values())}")
    return say.ok("libraries", text)


async def _user(settings: Settings) -> Findings:
    """Warn about root, which may do everything: its checks say nothing about the server's own user."""
    if os.geteuid() != 0:
        return
    unit = await asyncio.to_thread(of_unit)
    if unit is not None and unit.uid != 0:
        yield Reporter("user").warn(
            "root",
            f"a server runs as root, and {UNIT} would run as {unit.name}",
            f"before it does: fastagi doctor --user {unit.name} --fix",
        )
        return
    for path in (settings.recordings.directory, key_file(settings)):
        with contextlib.suppress(OSError):
            owner = path.stat().st_uid
            if owner != 0:
                name = user_name(owner)
                yield Reporter("user").warn(
                    "root",
                    f"this runs as root, but {path} belongs to {name}: what {name} may not do is not seen",
                    f"fastagi doctor --user {name}",
                )
                return


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _room(area: str, path: Path, least_mb: int, bytes_per_second: int) -> Finding:
    say = Reporter(area)
    try:
        found = os.statvfs(_existing(path))
    except OSError as exc:
        return say.fail("room", f"{path}: {exc.strerror}", "mount it")
    free = found.f_bavail * found.f_frsize
    hours = free / bytes_per_second / 3600
    what = f"{path}: {free / 1e9:.1f} GB free, {hours:,.0f} hours of calls"
    if free < least_mb * 1e6:
        return say.fail("room", what, f"make room: recordings.min_free_mb is {least_mb}")
    if free < 5 * least_mb * 1e6:
        return say.warn("room", what, f"less than five times recordings.min_free_mb ({least_mb}) is left")
    return say.ok("room", what)


def _writable(directory: Path) -> Finding:
    say = Reporter("recordings")
    there = _existing(directory)
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".fastagi-doctor-"):
            pass
    except OSError as exc:
        made = directory if there == directory else f"{directory} (its parent {there})"
        make = Fix(Change.MAKE, str(directory), user=user_name(), mode=0o2750)
        return say.fail(
            "writable", f"{made}: {exc.strerror}", str(make), rights.give(directory) if there == directory else make
        )
    return say.ok("writable", str(directory) if there == directory else f"{directory} will be made")


async def _free(host: str, port: int) -> OSError | None:
    """Return None when the address can be listened on now, else the error."""
    try:
        for opened in await bind(host, port):
            opened.close()
    except OSError as exc:
        return exc
    return None


def _local(host: str) -> str:
    """Return an address at which a server that listens on `host` is reached."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _descriptors(settings: Settings) -> Finding:
    """Check that this user's limit allows `[agi] max_sessions`; a systemd unit may have another limit."""
    say = Reporter("agi")
    limit = descriptors.available()
    where = "in the unit (LimitNOFILE) and in this shell (ulimit -Hn)"
    try:
        sessions = sessions_that_fit(settings, limit)
    except ConfigError as exc:
        return say.fail("descriptors", str(exc), f"raise the limit {where}, or lower agi.max_sessions")
    what = f"{limit} allowed here: room for {sessions} sessions"
    if sessions < settings.agi.max_sessions:
        needed = descriptors.needed(settings.agi.max_sessions, others(settings))
        return say.warn("descriptors", what, f"raise the limit to {needed} {where}")
    return say.ok("descriptors", what)


async def _agi_port(settings: Settings) -> Finding:
    say = Reporter("agi")
    agi = settings.agi
    where = f"{agi.host or '*'}:{agi.port}"
    if agi.port == 0:
        return say.ok("port", f"{agi.host}: a free one at each start")
    fault = await _free(agi.host, agi.port)
    if fault is None:
        return say.ok("port", f"{where} is free: the server does not run")
    try:
        key = agi.shared_key()
    except ConfigError:
        key = ""  # reported by the check of the key
    try:
        if await _is_ours(_local(agi.host), agi.port, key):
            return say.ok("port", f"{where}: fastagi answers there")
    except OSError:
        return _no_port(say, where, fault, agi.port)
    return say.fail(
        "port",
        f"{where} is taken, and who has it does not answer as fastagi",
        f"ss -ltnp 'sport = :{agi.port}' says who; if it is fastagi, agi.allow lacks this machine ({_local(agi.host)})",
    )


def _agi_key(settings: Settings) -> Finding:
    """Check whether every peer that reaches the port can command recordings."""
    say, agi = Reporter("agi"), settings.agi
    try:
        key = agi.shared_key()
        mode = stat.S_IMODE(agi.key_file.stat().st_mode) if agi.key_file is not None else 0
    except ConfigError as exc:
        return say.fail("key", str(exc), f"openssl rand -hex 16 > {agi.key_file}, readable for the server's user")
    except OSError as exc:
        return say.fail("key", f"{agi.key_file}: {exc.strerror}", "it must be readable for the server's user")
    if mode & 0o007:
        return say.warn("key", f"{agi.key_file} has mode {mode:04o}: everybody here can read it", "chmod 640 it")
    if key:
        return say.ok("key", "every AGI line must have it: agi://HOST/ROUTE?key=KEY")
    wide = [n for n in agi.allow if not _few(n)]
    if wide:
        return say.warn(
            "key",
            f"agi.allow has {', '.join(wide)} and no key is required: every peer there can end recordings",
            "set agi.key_file, and ?key=KEY in the AGI lines; or name the Asterisks alone in agi.allow",
        )
    return say.ok("key", "none is required: set agi.key_file where other users can reach the port")


def _few(network: str) -> bool:
    found = ipaddress.ip_network(network, strict=False)
    return found.is_loopback or found.num_addresses == 1


async def _is_ours(host: str, port: int, key: str) -> bool:
    """Call a route that every fastagi has, as a dialplan would.

    :raises OSError: nothing answers there
    """
    query = f"?key={key}" if key else ""
    header = f"agi_network: yes\nagi_network_script: {ROUTE}{query}\nagi_request: agi://{host}/{ROUTE}\n"
    header += "agi_channel: FastAGI/doctor\nagi_uniqueid: doctor.0\nagi_language: en\nagi_type: FastAGI\n\n"
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, limit=4096)
            try:
                writer.write(header.encode())
                await writer.drain()
                line = await reader.readline()
                writer.write(b"200 result=1\n")
            finally:
                writer.close()
    except (TimeoutError, ValueError):
        return False
    return GREETING.encode() in line


async def _http_port(settings: Settings) -> Findings:
    say = Reporter("http")
    http = settings.http
    where = f"{http.host or '*'}:{http.port}"
    if http.port == 0:
        yield say.ok("port", f"{http.host}: a free one at each start")
        return
    fault = await _free(http.host, http.port)
    if fault is None:
        yield say.ok("port", f"{where} is free: the server does not run")
        return
    host = _local(http.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{http.port}/readyz"
    said: dict[str, list[dict[str, str]]] = {}
    try:
        async with asyncio.timeout(ANSWER_SECONDS), bounded_session() as client, client.get(url) as answer:
            ours = answer.headers.get("Server", "").startswith("fastagi")
            if ours:
                said = json.loads(await read_at_most(answer, READY_BYTES))
    except aiohttp.ClientConnectorError:
        yield _no_port(say, where, fault, http.port)
        return
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        ours = False
    if not ours:
        yield say.fail(
            "port",
            f"{where} is taken, and who has it does not answer as fastagi",
            f"ss -ltnp 'sport = :{http.port}' says who; choose another http.port, or http.enabled = false",
        )
        return
    yield say.ok("port", f"{where}: fastagi answers there")
    if not said.get("problems"):
        yield Reporter("server").ok("ready", "the server that runs can record")
    for problem in said.get("problems", []):
        yield Reporter("server").fail("ready", f"{problem['what']}: {problem['problem']}", problem["do"])
    for warning in said.get("warnings", []):
        yield Reporter("server").warn("ready", f"{warning['what']}: {warning['problem']}", warning["do"])


def _no_port(say: Reporter, where: str, fault: OSError, port: int) -> Finding:
    """Return the finding for a port that can neither be opened nor reached."""
    text = fault.strerror or str(fault)
    if isinstance(fault, PermissionError):
        return say.fail("port", f"{where}: {text}", "ports below 1024 belong to root: choose another")
    if isinstance(fault, socket.gaierror):
        return say.fail("port", f"{where}: {text}", "write an address of this machine, or a name that it knows")
    return say.fail(
        "port", f"{where}: {text}", f"ss -ltnp 'sport = :{port}', and is the address one of this machine's?"
    )


def _open_settings() -> Finding | None:
    """Return a finding when this user may not read the settings file, or when it holds secrets and everyone may."""
    path = discover()
    if path is None:
        return None
    if path.exists() and not os.access(path, os.R_OK, effective_ids=True):
        return Reporter("settings").fail(
            "readable", f"{user_name()} may not read {path}", f"chgrp {user_name()} {path} && chmod 640 {path}"
        )
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        holds = any(
            line.split("=")[0].strip() in ("secret", "signing_secret", "token", "key")
            for line in path.read_text().splitlines()
        )
    except (OSError, ValueError):
        return None
    if holds and mode & 0o004:
        return Reporter("settings").warn(
            "mode", f"{path} holds a secret and everybody can read it", f"chmod 640 {path}, or use secret_file"
        )
    return None
