"""Checks one Asterisk: the login, the rights that recording needs, its version and its modules.

Nothing is changed there: every action names a channel that does not exist, or only reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass

from fastagi.app.doctor.finding import Findings, Reporter
from fastagi.app.doctor.session import Session, connected, text
from fastagi.app.doctor.spool import fault_here, same_spool
from fastagi.app.identity import TWINS_REMEDY, twins
from fastagi.domain.asterisk_versions import NEWEST, too_old
from fastagi.errors import AsteriskDown, AsteriskError, ConfigError
from fastagi.settings import AgiSettings, AsteriskSettings

NOBODY = "FastAGI/doctor"
"""A channel that never exists."""

NEEDED: tuple[tuple[str, dict[str, object], str, str], ...] = (
    ("MixMonitor", {"Channel": NOBODY, "File": "fastagi-doctor.wav"}, "system", "start recordings"),
    ("StopMixMonitor", {"Channel": NOBODY}, "call", "stop recordings"),
    ("MixMonitorMute", {"Channel": NOBODY, "Direction": "both", "State": 0}, "call", "pause recordings"),
    ("CoreShowChannels", {}, "system", "find calls again after a restart"),
    ("Getvar", {"Variable": "FASTAGI"}, "call", "find recordings again after a restart"),
    ("Setvar", {"Channel": NOBODY, "Variable": "FASTAGI", "Value": ""}, "call", "see who talks"),
    ("UserEvent", {"UserEvent": "FastAGIDoctor"}, "user", "announce recordings"),
    ("Filter", {"Operation": "Add", "Filter": "Event: FastAGIDoctorNone"}, "system", "keep the event flood away"),
    ("CoreSettings", {}, "reporting", "know version and system name"),
)
"""Action, harmless headers, the write class that allows it, and its purpose."""

MODULES = (
    ("app_mixmonitor", True, "records"),
    ("res_agi", True, "calls this server from the dialplan"),
    ("format_wav", True, "writes the raw files"),
    ("app_stack", False, "Gosub, which dialplan/record.conf uses"),
    ("func_talkdetect", False, "silence limits where the spool cannot be read"),
)
"""Module, whether recording needs it, and its purpose."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Facts about one Asterisk, for comparing several.

    :param addresses: addresses that its FastAGI calls can come from
    """

    name: str
    system: str
    addresses: frozenset[str]


async def examine(settings: AsteriskSettings, agi: AgiSettings, seen: list[Seen] | None = None) -> Findings:
    """Yield the findings about one Asterisk.

    :param seen: gets the facts that `alike` compares
    """
    async for finding in _way_back(settings, agi):
        yield finding
    say = Reporter(f"asterisk {settings.name}")
    where = f"{settings.username} at {settings.host}:{settings.port}"
    asked = False
    try:
        async with connected(settings) as session:
            asked = True
            yield say.ok("login", where)
            async for finding in _version(say, session):
                yield finding
            if seen is not None:
                seen.append(await _seen(settings, session))
            async for finding in _write_rights(say, session):
                yield finding
            async for finding in _read_rights(say, session, settings.username):
                yield finding
            async for finding in _modules(say, session):
                yield finding
            async for finding in same_spool(say, session, settings.spool):
                yield finding
    except ConfigError as exc:
        secret = "secret" in str(exc)
        yield say.fail(
            "login", str(exc), "put the manager user's secret into secret_file" if secret else "correct tls_ca_file"
        )
    except AsteriskDown as exc:
        yield say.fail(
            "login",
            str(exc),
            "is Asterisk up, and does manager.conf have "
            + ("tlsenable = yes and this tlsbindaddr?" if settings.tls else "enabled = yes, this bindaddr and port?"),
        )
    except AsteriskError as exc:
        yield say.fail(
            "login", str(exc), f"compare username and secret with [{settings.username}] in manager.conf, and its permit"
        )
    fault = None if asked else await asyncio.to_thread(fault_here, settings.spool)
    if fault is not None:
        yield say.fail("spool", *fault)


async def _seen(settings: AsteriskSettings, session: Session) -> Seen:
    answer = await session.ask("CoreSettings")
    addresses = {settings.host, *settings.agi_hosts}
    with contextlib.suppress(OSError):
        found = await asyncio.get_running_loop().getaddrinfo(settings.host, None, type=socket.SOCK_STREAM)
        addresses |= {str(a[4][0]) for a in found}
    return Seen(settings.name, text(answer.systemname), frozenset(addresses))


async def alike(seen: list[Seen]) -> Findings:
    """Yield which of them can call from one address with equal uniqueids."""
    for one, other in twins([(s.name, s.system, s.addresses) for s in seen]):
        yield Reporter("asterisk").warn(
            "system names",
            f"{one} and {other} call from one address, and neither has a systemname of its own: uniqueids can be equal",
            TWINS_REMEDY,
        )


async def _way_back(settings: AsteriskSettings, agi: AgiSettings) -> Findings:
    """Check whether the dialplan of that Asterisk could call this server. Judged by addresses: no call is made."""
    say = Reporter(f"asterisk {settings.name}")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(settings.host, None, type=socket.SOCK_STREAM)
    except OSError as exc:
        yield say.fail(
            "address", f"{settings.host}: {exc.strerror or exc}", "write an address, or a name that resolves"
        )
        return
    addresses = [ipaddress.ip_address(str(a[4][0]).partition("%")[0]) for a in found]
    callers = [ipaddress.ip_address(h) for h in settings.agi_hosts if _is_address(h)] or addresses
    networks = [ipaddress.ip_network(n, strict=False) for n in agi.allow]
    if not any(address in network for address in callers for network in networks):
        shown = ", ".join(dict.fromkeys(map(str, callers)))
        yield say.warn(
            "way back", f"{shown} is not in agi.allow: calls from there are refused", f"add {shown} to agi.allow"
        )
    elif _is_loopback(agi.host) and not any(address.is_loopback for address in callers):
        yield say.warn(
            "way back",
            f"agi.host is {agi.host}: the dialplan on {settings.host} cannot reach it",
            "let agi.host be this machine's address on their network",
        )


def _is_loopback(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


async def _version(say: Reporter, session: Session) -> Findings:
    answer = await session.ask("CoreSettings")
    found = text(answer.asteriskversion)
    numbers = [int(n) for n in re.findall(r"\d+", found)[:2]]
    if not numbers:
        yield say.warn("version", "not told", "give the manager user write = reporting")
        return
    major, minor = numbers[0], numbers[1] if len(numbers) > 1 else 0
    if too_old(major, minor):
        yield say.fail("version", found, "MixMonitor's events came with 16.17 and 18.3: upgrade Asterisk")
    elif major > NEWEST:
        yield say.warn("version", found, f"tried up to {NEWEST}: place a test call and look at its recording")
    else:
        yield say.ok("version", found)


async def _write_rights(say: Reporter, session: Session) -> Findings:
    refused: dict[str, list[str]] = {}
    unknown: list[str] = []
    for action, headers, right, purpose in NEEDED:
        answer = await session.ask(action, **headers)
        message = text(answer.message)
        if answer.success:
            continue
        if "permission denied" in message.lower():
            refused.setdefault(right, []).append(f"{action} ({purpose})")
        elif "unknown command" in message.lower():
            unknown.append(action)
    for right, actions in refused.items():
        what = f"may not {', '.join(actions)}"
        remedy = f"add {right} to `write` of this user in manager.conf, then `manager reload`"
        yield say.warn("rights", what, remedy) if right == "reporting" else say.fail("rights", what, remedy)
    if unknown:
        yield say.fail("rights", f"Asterisk does not know {', '.join(unknown)}", "load app_mixmonitor (modules.conf)")
    if not refused and not unknown:
        yield say.ok("rights", "may start, stop and pause recordings, and list channels")
    listed = await session.ask("Command", Command="mixmonitor list")
    if "permission denied" in text(listed.message).lower():
        yield say.warn(
            "command",
            "may not run CLI commands: whether a file is really open is judged by the file alone",
            "add command to `write` (a strong right: see dialplan/manager.conf)",
        )


async def _read_rights(say: Reporter, session: Session, username: str) -> Findings:
    """Read the rights from `manager show user`. Without it, use what can be seen: FullyBooted needs `system`, a
    UserEvent `user`.
    """
    shown = await session.command(f"manager show user {username}") if re.fullmatch(r"[\w.@-]+", username) else ""
    match = re.search(r"read perm:\s*(\S*)", shown)
    if match is not None:
        granted = set(match.group(1).split(","))
        missing = [c for c in ("call", "system", "user") if c not in granted and "all" not in granted]
    else:
        await asyncio.sleep(0.2)  # events are sent apart from responses
        missing = [c for c, event in (("system", "FullyBooted"), ("user", "UserEvent")) if event not in session.events]
    if missing:
        yield say.fail(
            "events",
            f"does not get events of class {', '.join(missing)}: hangups are not noticed, recordings do not end",
            f"add {', '.join(missing)} to `read` of this user in manager.conf, then `manager reload`",
        )
    elif match is not None:
        yield say.ok("events", "gets call, system and user events")
    else:
        yield say.warn(
            "events",
            "gets system and user events; whether it gets call events cannot be seen without the right command",
            "look into manager.conf: read = system,call,user",
        )


async def _modules(say: Reporter, session: Session) -> Findings:
    loaded: list[str] = []
    missing = False
    for module, needed, purpose in MODULES:
        answer = await session.ask("ModuleCheck", Module=module)
        if answer.success:
            loaded.append(module)
            continue
        if "permission denied" in text(answer.message).lower():
            yield say.warn("modules", "may not be asked for", "add system to `write` of this user in manager.conf")
            return
        missing = True
        words = (f"{module} is not loaded ({purpose})", f"`module load {module}.so`, and no noload in modules.conf")
        yield say.fail("modules", *words) if needed else say.warn("modules", *words)
    if not missing:
        yield say.ok("modules", ", ".join(loaded))
