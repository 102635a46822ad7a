"""Answers of `ScriptedAmi` to actions about calls, in the words of a real Asterisk 22 and 16."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from fastagi.testing.fake_calls import FakeCalls, FakeChannel

Row = dict[str, str]
Answer = Row | list[Row] | None
"""Response, or a response with the rows that follow it; None: no answer at all."""

After = Callable[[], None] | None
"""Function called once the answer is sent: the events come after it."""


class FakePbx(Protocol):
    """Fake Asterisk that an action is about, as `ScriptedAmi` plays it."""

    calls: FakeCalls
    major: int
    system_name: str
    modules: set[str]
    variables: dict[str, str]

    @property
    def channels(self) -> dict[str, FakeChannel]: ...

    def call(
        self,
        name: str = "",
        *,
        uniqueid: str = "",
        linkedid: str = "",
        caller: str = "1001",
        context: str = "from-sipp",
        exten: str = "s",
    ) -> FakeChannel: ...

    def hangup(self, channel: FakeChannel, cause: str = "16") -> None: ...

    def event(self, name: str, headers: Mapping[str, str] | None = None, /, **more: str) -> None: ...


_NO_CHANNEL = "No such channel"


def error(message: str) -> Row:
    """``Response: Error``."""
    return {"Response": "Error", "Message": message}


def success(**more: str) -> Row:
    """``Response: Success``."""
    return {"Response": "Success", **more}


def perform(ami: FakePbx, name: str, row: Row) -> tuple[Answer, After]:
    """Return the answer to an action (name in lower case) and the function to call after it."""
    action = _ACTIONS.get(name)
    if action is None or (name.endswith("monitor") and "mix" not in name and ami.major > 20):
        shown = row.get("Action", "")
        text = f"Invalid/unknown command: {shown}. Use Action: ListCommands to show available commands."
        return error(text), None
    return action(ami, row)


def _ping(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    return success(Ping="Pong", Timestamp=f"{time.time():.6f}"), None


def _settings(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    version = "22.10.1" if ami.major >= 20 else f"{ami.major}.28.0"
    amiversion = "11.0.0" if ami.major >= 20 else "5.0.4"
    return success(AMIversion=amiversion, AsteriskVersion=version, SystemName=ami.system_name), None


def _channels(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    rows = [success(EventList="start", Message="Channels will follow")]
    for channel in ami.channels.values():
        seconds = int(time.monotonic() - channel.created)
        duration = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        rows.append(
            {
                "Event": "CoreShowChannel",
                **channel.headers(),
                "Application": channel.application,
                "ApplicationData": "",
                "Duration": duration,
                "BridgeId": "",
            }
        )
    done = {"Event": "CoreShowChannelsComplete", "EventList": "Complete", "ListItems": str(len(rows) - 1)}
    return [*rows, done], None


def _status(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    if row.get("Channel") and _found(ami, row) is None:
        return error(_NO_CHANNEL), None
    shown = [c for c in ami.channels.values() if row.get("Channel") in (None, "", c.name)]
    rows = [success(EventList="start", Message="Channel status will follow")]
    for channel in shown:
        seconds = str(int(time.monotonic() - channel.created))
        more = {"Type": channel.name.split("/")[0], "Application": channel.application, "Data": "", "BridgeID": ""}
        rows.append({"Event": "Status", "Privilege": "Call", **channel.headers(), **more, "Seconds": seconds})
    count = str(len(shown))
    done = {"Event": "StatusComplete", "EventList": "Complete", "ListItems": count, "Items": count}
    return [*rows, done], None


def _module(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    name = row.get("Module", "").removesuffix(".so")
    there = name in ami.modules and not (name == "res_monitor" and ami.major > 20)
    return success(Version="") if there else error("Module not loaded"), None


def _found(ami: FakePbx, row: Row) -> FakeChannel | None:
    return ami.channels.get(row.get("Channel", ""))


def _getvar(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    name = row.get("Variable", "")
    if not row.get("Channel"):
        return success(Variable=name, Value=ami.variables.get(name, "")), None
    channel = _found(ami, row)
    if channel is None:
        return error(_NO_CHANNEL), None
    return success(Variable=name, Value=_value(channel, name)), None


def _value(channel: FakeChannel, name: str) -> str:
    """Return a variable, or the value of a function that a recorder reads."""
    known = {
        "CHANNEL(uniqueid)": channel.uniqueid,
        "CHANNEL(linkedid)": channel.linkedid,
        "CHANNEL(name)": channel.name,
        "CHANNEL(state)": "Up" if channel.state == "6" else "Ring",
        "UNIQUEID": channel.uniqueid,
        "CALLERID(num)": channel.caller,
    }
    for monitor in channel.monitors:
        known[f"MIXMONITOR({monitor.id},filename)"] = monitor.filename
    return known.get(name) or channel.variables.get(name, "")


def _setvar(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    if not row.get("Channel"):
        ami.variables[row.get("Variable", "")] = row.get("Value", "")
        return success(Message="Variable Set"), None
    channel = _found(ami, row)
    if channel is None:
        return error(_NO_CHANNEL), None
    channel.variables[row.get("Variable", "")] = row.get("Value", "")
    return success(Message="Variable Set"), None


def _mixmonitor(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    if not row.get("Channel"):
        return error("No channel specified"), None
    channel = _found(ami, row)
    if channel is None:
        return error(_NO_CHANNEL), None
    options = row.get("Options", "")
    monitor = ami.calls.monitor(channel, row.get("File", ""), options)
    answer = success(MixMonitorID=monitor.id) if "i(" in options else success()
    return answer, lambda: ami.event("MixMonitorStart", channel.headers())


def _stop_mixmonitor(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    if not row.get("Channel"):
        return error("No channel specified"), None
    channel = _found(ami, row)
    if channel is None:
        return error(_NO_CHANNEL), None
    wanted = row.get("MixMonitorID")
    monitor = next((m for m in channel.monitors if m.id != "monitor" and wanted in (None, "", m.id)), None)
    if monitor is None:
        return error("Could not stop monitoring channel"), None
    channel.monitors.remove(monitor)
    monitor.close()
    return success(), lambda: ami.event("MixMonitorStop", channel.headers())


def _mute(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    if not row.get("Channel"):
        return error("No channel specified"), None
    if "State" not in row:
        return error("No state specified"), None
    directions = {"read": {"read"}, "write": {"write"}, "both": {"read", "write"}}.get(row.get("Direction", ""))
    if directions is None:
        return error("Invalid direction specified. Must be read, write or both"), None
    channel = _found(ami, row)
    if channel is None:
        return error(_NO_CHANNEL), None
    monitors = [m for m in channel.monitors if m.id != "monitor"]
    if ami.major < 20:
        monitors = monitors[-1:]  # 16 knows no MixMonitorID here and mutes the one that was started first
    elif row.get("MixMonitorID"):
        monitors = [m for m in monitors if m.id == row["MixMonitorID"]]
    if not monitors:
        return error("Cannot set mute flag"), None
    for monitor in monitors:
        monitor.muted = monitor.muted - directions if row["State"] == "0" else monitor.muted | directions
    return success(), lambda: ami.event(
        "MixMonitorMute", channel.headers(), Direction=row["Direction"], State="0" if row["State"] == "0" else "1"
    )


def _monitor(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    channel = _found(ami, row)
    if channel is None:
        return error(_NO_CHANNEL), None
    ami.calls.monitor_legs(channel, row.get("File", channel.uniqueid), row.get("Format", "wav"))
    return success(Message="Started monitoring channel"), lambda: ami.event("MonitorStart", channel.headers())


def _stop_monitor(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    channel = _found(ami, row)
    if channel is None:
        return error(_NO_CHANNEL), None
    monitor = next((m for m in channel.monitors if m.id == "monitor"), None)
    if monitor is None:
        return success(Message="Stopped monitoring channel"), None
    channel.monitors.remove(monitor)
    monitor.close()
    return success(Message="Stopped monitoring channel"), lambda: ami.event("MonitorStop", channel.headers())


def _pause_monitor(paused: bool) -> Callable[[FakePbx, Row], tuple[Answer, After]]:
    def action(ami: FakePbx, row: Row) -> tuple[Answer, After]:
        channel = _found(ami, row)
        if channel is None:
            return error(_NO_CHANNEL), None
        for monitor in channel.monitors:
            if monitor.id == "monitor":
                monitor.paused = paused
        return success(Message=f"{'Paused' if paused else 'Unpaused'} monitoring of the channel"), None

    return action


def _command(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    words = row.get("Command", "").split()
    if words[:2] == ["mixmonitor", "list"] and len(words) == 3:
        return success(Message="Command output follows", Output=_listing(ami, words[2])), None
    shown = row.get("Command", "")
    text = f"No such command '{shown}' (type 'core show help {shown}' for other possible commands)"
    return {**error("Command output follows"), "Output": text}, None


def _listing(ami: FakePbx, name: str) -> str:
    """Return the rows of `mixmonitor list`: names without extension, empty for a file that could not be opened."""
    channel = ami.channels.get(name)
    if channel is None:
        return f"No channel matching '{name}' found."
    lines = ["MixMonitor ID\tFile\tReceive File\tTransmit File", "=" * 73]
    for monitor in channel.monitors:
        shown = {f.direction: str(f.path.with_suffix("")) for f in monitor.files if f.opened}
        lines.append("\t".join([monitor.id, *(shown.get(d, "") for d in ("mixed", "read", "write"))]))
    return "\n".join(lines)


def _hangup(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    channel = _found(ami, row)
    if channel is None:
        return error(_NO_CHANNEL), None
    return success(Message="Channel Hungup"), lambda: ami.hangup(channel, row.get("Cause", "0"))


def _userevent(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    headers = {k: v for k, v in row.items() if k not in ("Action",)}
    return success(Message="Event Sent"), lambda: ami.event("UserEvent", headers)


def _originate(ami: FakePbx, row: Row) -> tuple[Answer, After]:
    """Originate a call, answered at once. ``Local/...`` makes two channels, any other name one."""
    dialled = row.get("Channel", "")
    if not dialled:
        return error("Channel not specified"), None

    def after() -> None:
        uniqueid = row.get("ChannelId") or ami.calls.new_uniqueid()
        variables = dict(v.partition("=")[::2] for v in row.get("Variable", "").split("\n") if v)
        variables = {k.lstrip("_"): v for k, v in variables.items()}
        if dialled.startswith("Local/"):
            stem = f"{dialled.removesuffix('/n')}-{ami.calls.next_number():08x}"
            exten, _, context = dialled.removesuffix("/n").removeprefix("Local/").partition("@")
            first = ami.call(f"{stem};1", uniqueid=uniqueid, context=context, exten=exten)
            other = row.get("OtherChannelId", "")
            second = ami.call(f"{stem};2", uniqueid=other, linkedid=uniqueid, context=context, exten=exten)
            second.variables |= variables
        else:
            first = ami.call(f"{dialled}-{ami.calls.next_number():08x}", uniqueid=uniqueid)
        first.variables |= variables
        answer = {"ActionID": row.get("ActionID", ""), "Response": "Success", "Channel": first.name}
        ami.event("OriginateResponse", {**answer, "Reason": "4", "Uniqueid": first.uniqueid})

    return success(Message="Originate successfully queued"), after


_ACTIONS: dict[str, Callable[[FakePbx, Row], tuple[Answer, After]]] = {
    "ping": _ping,
    "coresettings": _settings,
    "coreshowchannels": _channels,
    "status": _status,
    "modulecheck": _module,
    "getvar": _getvar,
    "setvar": _setvar,
    "mixmonitor": _mixmonitor,
    "stopmixmonitor": _stop_mixmonitor,
    "mixmonitormute": _mute,
    "monitor": _monitor,
    "stopmonitor": _stop_monitor,
    "pausemonitor": _pause_monitor(True),
    "unpausemonitor": _pause_monitor(False),
    "command": _command,
    "hangup": _hangup,
    "userevent": _userevent,
    "originate": _originate,
}
