"""Typed AMI actions of a recorder, each with its Asterisk action and the write class it needs in manager.conf.

All take the `Manager` first and raise the same errors:

:raises ActionRefused: Asterisk answered with an error; `message` has its words (``No such channel``)
:raises AsteriskDown: not connected, or the connection was lost before the answer: it may or may not have been done
:raises ActionTimeout: no answer in time: it may or may not have been done
:raises BadArgument: an argument would break out of its header, or out of the application's arguments

`timeout` is in seconds, the manager's `action_seconds` when None. No action is retried here: only the caller knows
whether an action may be done twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from panoramisk.message import Message

from fastagi.ami.events import ChannelRow
from fastagi.ami.manager import Manager
from fastagi.errors import ActionRefused, BadArgument

DIRECTIONS = ("read", "write", "both")

_UNSAFE_FILE = re.compile(r"[,\x00-\x1f\x7f\"'\\|;&`]|[$^]\{")
_VARIABLE = re.compile(r"[A-Za-z0-9_]+(\([^()\x00-\x1f]*\))?")


@dataclass(frozen=True, slots=True)
class MixMonitorRow:
    """MixMonitor with open files, as a row of `mixmonitor list`. Paths have no suffix there."""

    id: str
    file: str
    received: str = ""
    sent: str = ""


@dataclass(frozen=True, slots=True)
class Originated:
    """Answered call: its channel and uniqueid."""

    channel: str
    uniqueid: str


async def _ask(ami: Manager, action: Mapping[str, Any], timeout: float | None, **options: Any) -> Any:
    answer = await ami.send_action(action, timeout=timeout, **options)
    first = answer[0] if isinstance(answer, list) else answer
    if not first.success:
        raise ActionRefused(str(first.message) or f"{action['Action']} was refused")
    return answer


def _channel(channel: str) -> str:
    """Check a channel's name.

    :raises BadArgument: empty, or a regular expression (`Hangup` takes ``/.../`` for all channels that match)
    """
    if not channel or channel.startswith("/"):
        raise BadArgument(f"channel={channel!r} is no channel's name")
    return channel


def _file(name: str, value: str) -> str:
    """Check a file name.

    :raises BadArgument: Asterisk would split or expand the name
    """
    if _UNSAFE_FILE.search(value) or ".." in value.split("/"):
        raise BadArgument(f"{name}={value!r} holds a comma, quote, `..`, ${{, ^{{ or a control character")
    return value


async def mixmonitor(ami: Manager, channel: str, file: str, options: str = "", *, timeout: float | None = None) -> str:
    """Start a MixMonitor and return its id. Action `MixMonitor`, write class system.

    Asterisk answers before it opens the file: only `mixmonitor_list` or the file itself prove the recording.

    :param file: absolute path; its suffix is the format (``.wav``: 8 kHz mono 16-bit)
    :param options: MixMonitor's own: ``r(file)t(file)b...``; ``i(FASTAGI_MIXMONITOR)`` is added when it has no ``i``,
        because without it Asterisk does not tell the id
    """
    if not file:
        raise BadArgument("file='' is empty")
    if not re.search(r"i\(\w+\)", options):
        options += "i(FASTAGI_MIXMONITOR)"
    action = {"Action": "MixMonitor", "Channel": _channel(channel), "File": _file("file", file)}
    answer = await _ask(ami, {**action, "Options": _file("options", options)}, timeout)
    return str(answer.mixmonitorid)


async def stop_mixmonitor(ami: Manager, channel: str, id: str = "", *, timeout: float | None = None) -> None:
    """Stop a MixMonitor. Its file is closed when this returns. Action `StopMixMonitor`, write class system or call.

    :param id: id of the MixMonitor; "" stops any one of the channel
    """
    action = {"Action": "StopMixMonitor", "Channel": _channel(channel)}
    await _ask(ami, {**action, "MixMonitorID": id} if id else action, timeout)


async def mixmonitor_mute(
    ami: Manager,
    channel: str,
    direction: str = "both",
    state: bool = True,
    id: str = "",
    *,
    timeout: float | None = None,
) -> None:
    """Record silence instead of audio, or audio again. Action `MixMonitorMute`, write class system or call.

    :param direction: ``read`` (from the channel), ``write`` (to it) or ``both``
    :param id: id of the MixMonitor; "" mutes all of the channel. Asterisk 16 ignores the id and mutes the first started
    """
    if direction not in DIRECTIONS:
        raise BadArgument(f"direction={direction!r} is not known: use one of {', '.join(DIRECTIONS)}")
    action = {"Action": "MixMonitorMute", "Channel": _channel(channel), "Direction": direction, "State": int(state)}
    await _ask(ami, {**action, "MixMonitorID": id} if id else action, timeout)


async def mixmonitor_list(ami: Manager, channel: str, *, timeout: float | None = None) -> list[MixMonitorRow]:
    """Return the MixMonitors of a channel. Action `Command`, write class command.

    A row is no proof of an open file: its columns stay empty until the file is open, or if it cannot be opened.
    """
    if re.search(r"[\s\"\\]", _channel(channel)):
        raise BadArgument(f"channel={channel!r} cannot be named in a CLI command")
    lines = await command(ami, f"mixmonitor list {channel}", timeout=timeout)
    if lines and lines[0].startswith("No channel matching"):
        raise ActionRefused("No such channel")
    rows = []
    for line in lines:
        parts = line.split("\t")
        if parts[0].startswith("0x"):
            parts += [""] * (4 - len(parts))
            rows.append(MixMonitorRow(parts[0].strip(), *(p.strip() for p in parts[1:4])))
    return rows


async def getvar(ami: Manager, variable: str, channel: str = "", *, timeout: float | None = None) -> str:
    """Return the value of a variable or function (``CHANNEL(linkedid)``); "" when it is not set.

    Action `Getvar`, write class call or reporting.

    :param channel: "" for a global variable
    """
    action = {"Action": "Getvar", "Variable": variable}
    answer = await _ask(ami, {**action, "Channel": _channel(channel)} if channel else action, timeout)
    return str(answer.get("Value", ""))


async def setvar(ami: Manager, variable: str, value: str, channel: str = "", *, timeout: float | None = None) -> None:
    """Set a variable or write a function: ``TALK_DETECT(set)``. Action `Setvar`, write class call.

    :param channel: "" for a global variable
    """
    if not _VARIABLE.fullmatch(variable):
        raise BadArgument(f"variable={variable!r} is no variable's or function's name")
    action = {"Action": "Setvar", "Variable": variable, "Value": value}
    await _ask(ami, {**action, "Channel": _channel(channel)} if channel else action, timeout)


async def core_show_channels(ami: Manager, *, timeout: float | None = None) -> list[ChannelRow]:
    """Return all channels. Action `CoreShowChannels`, write class system or reporting."""
    answer = await _ask(ami, {"Action": "CoreShowChannels"}, timeout, as_list=True)
    return [ChannelRow.parse(row) for row in answer[1:] if row.event == "CoreShowChannel"]


async def status(ami: Manager, channel: str, *, timeout: float | None = None) -> ChannelRow:
    """Return one channel. Action `Status`, write class system, call or reporting."""
    answer = await _ask(ami, {"Action": "Status", "Channel": _channel(channel)}, timeout, as_list=True)
    for row in answer[1:]:
        if row.event == "Status":
            return ChannelRow.parse(row)
    raise ActionRefused("No such channel")


async def command(ami: Manager, text: str, *, timeout: float | None = None) -> list[str]:
    """Return the lines that a CLI command prints. Action `Command`, write class command."""
    answer: Message = await ami.send_action({"Action": "Command", "Command": text}, timeout=timeout)
    lines = str(answer.content).split("\n") if answer.content else []
    if not answer.success:
        # "No such command" is in the output; the message only says that output follows
        raise ActionRefused(lines[0] if lines else str(answer.message))
    return lines


async def user_event(ami: Manager, name: str, *events: Mapping[str, object], timeout: float | None = None) -> None:
    """Publish a UserEvent, or several of that name at once. Action `UserEvent`, write class user.

    :param events: free headers of each event, but for `Action`, `ActionID` and `UserEvent`
    """
    for headers in events:
        for key in headers:
            if key.lower() in _TAKEN:
                raise BadArgument(f"header {key!r} of a UserEvent is taken")
    answer = await ami.publish(name, events, timeout=timeout)
    if not answer.success:
        raise ActionRefused(str(answer.message) or "UserEvent was refused")


_TAKEN = frozenset({"action", "actionid", "userevent"})


async def originate(
    ami: Manager,
    channel: str,
    *,
    application: str = "",
    data: str = "",
    context: str = "",
    exten: str = "",
    priority: int = 1,
    caller_id: str = "",
    account: str = "",
    variables: Mapping[str, object] | None = None,
    answer_seconds: float = 30.0,
    timeout: float | None = None,
) -> Originated:
    """Call `channel` and, once it is answered, run an application or an extension there. Returns at the answer.

    Action `Originate`, write class originate (and system for applications that could run a program).

    :param application, data: either these, or `context`, `exten`, `priority`
    :param variables: set on the new channel; commas and quotes are escaped
    :param answer_seconds: time to answer the call
    :raises ActionRefused: not answered, busy, or no such endpoint (`Originate failed: reason 3`)
    """
    if bool(application) == bool(context and exten):
        raise BadArgument("originate takes either application or context and exten")
    action: dict[str, Any] = {
        "Action": "Originate",
        "Channel": _channel(channel),
        "Timeout": int(answer_seconds * 1000),
    }
    if application:
        action |= {"Application": application, "Data": data}
    else:
        action |= {"Context": context, "Exten": exten, "Priority": priority}
    if caller_id:
        action["CallerID"] = caller_id
    if account:
        action["Account"] = account
    if variables:
        action["Variable"] = [f"{_name(key)}={_escape(str(value))}" for key, value in variables.items()]
    answer: Message = await ami.send_action(action, timeout=timeout)
    if not answer.success:
        reason = f": reason {answer.reason}" if answer.reason else ""
        raise ActionRefused(f"{answer.message or 'Originate failed'}{reason}")
    return Originated(str(answer.channel), str(answer.uniqueid))


def _name(variable: str) -> str:
    if not _VARIABLE.fullmatch(variable.lstrip("_") or " "):
        raise BadArgument(f"variable={variable!r} is no variable's or function's name")
    return variable


def _escape(value: str) -> str:
    """Escape a value: Asterisk splits a `Variable` header at commas and removes quotes (AST_STANDARD_APP_ARGS)."""
    return re.sub(r'([\\",])', r"\\\1", value)


async def hangup(ami: Manager, channel: str, cause: int = 16, *, timeout: float | None = None) -> None:
    """Hang one channel up. Action `Hangup`, write class system or call.

    :param cause: Q.850; 16 is normal clearing
    """
    await _ask(ami, {"Action": "Hangup", "Channel": _channel(channel), "Cause": cause}, timeout)


async def redirect(
    ami: Manager, channel: str, context: str, exten: str, priority: int = 1, *, timeout: float | None = None
) -> None:
    """Send a channel elsewhere in the dialplan. Action `Redirect`, write class call."""
    action = {
        "Action": "Redirect",
        "Channel": _channel(channel),
        "Context": context,
        "Exten": exten,
        "Priority": priority,
    }
    await _ask(ami, action, timeout)


async def module_check(ami: Manager, module: str, *, timeout: float | None = None) -> bool:
    """Tell whether a module (``app_mixmonitor``) is loaded. Action `ModuleCheck`, write class system.

    :raises ActionRefused: the user may not ask
    """
    answer: Message = await ami.send_action({"Action": "ModuleCheck", "Module": module}, timeout=timeout)
    if not answer.success and "not loaded" not in str(answer.message).lower():
        raise ActionRefused(str(answer.message))
    return bool(answer.success)


async def monitor(
    ami: Manager, channel: str, file: str, format: str = "wav", mix: bool = False, *, timeout: float | None = None
) -> None:
    """Start Monitor: `file`-in and `file`-out. Asterisk 20 and older. Action `Monitor`, write class call."""
    action = {"Action": "Monitor", "Channel": _channel(channel), "File": _file("file", file), "Format": format}
    await _ask(ami, {**action, "Mix": "1"} if mix else action, timeout)


async def stop_monitor(ami: Manager, channel: str, *, timeout: float | None = None) -> None:
    """Stop Monitor. Asterisk 20 and older. Action `StopMonitor`, write class call."""
    await _ask(ami, {"Action": "StopMonitor", "Channel": _channel(channel)}, timeout)


async def pause_monitor(ami: Manager, channel: str, *, timeout: float | None = None) -> None:
    """Pause Monitor. Asterisk 20 and older. Action `PauseMonitor`, write class call."""
    await _ask(ami, {"Action": "PauseMonitor", "Channel": _channel(channel)}, timeout)


async def unpause_monitor(ami: Manager, channel: str, *, timeout: float | None = None) -> None:
    """Resume Monitor. Asterisk 20 and older. Action `UnpauseMonitor`, write class call."""
    await _ask(ami, {"Action": "UnpauseMonitor", "Channel": _channel(channel)}, timeout)
