"""What each action sends, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from scripted_peer import Peer, manager

from fastagi.ami import Manager, actions
from fastagi.errors import ActionRefused, BadArgument


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
async def ami(peer: Peer) -> AsyncIterator[Manager]:
    made, _ = manager(peer)
    await made.start()
    await made.wait_up(5)
    peer.actions.clear()
    yield made
    await made.stop()


def sent(peer: Peer) -> dict[str, str]:
    """The last action, without its id."""
    return {key: value for key, value in peer.actions[-1].items() if key != "ActionID"}


@pytest.mark.parametrize(
    ("name", "args", "headers"),
    [
        ("stop_mixmonitor", ("c",), {"Action": "StopMixMonitor", "Channel": "c"}),
        ("stop_mixmonitor", ("c", "0x1"), {"Action": "StopMixMonitor", "Channel": "c", "MixMonitorID": "0x1"}),
        (
            "mixmonitor_mute",
            ("c", "read", True, "0x1"),
            {"Action": "MixMonitorMute", "Channel": "c", "Direction": "read", "State": "1", "MixMonitorID": "0x1"},
        ),
        ("mixmonitor_mute", ("c",), {"Action": "MixMonitorMute", "Channel": "c", "Direction": "both", "State": "1"}),
        ("setvar", ("V", "x", "c"), {"Action": "Setvar", "Variable": "V", "Value": "x", "Channel": "c"}),
        ("setvar", ("F(a)", "x"), {"Action": "Setvar", "Variable": "F(a)", "Value": "x"}),
        ("hangup", ("c",), {"Action": "Hangup", "Channel": "c", "Cause": "16"}),
        (
            "redirect",
            ("c", "ctx", "100"),
            {"Action": "Redirect", "Channel": "c", "Context": "ctx", "Exten": "100", "Priority": "1"},
        ),
        ("monitor", ("c", "/f"), {"Action": "Monitor", "Channel": "c", "File": "/f", "Format": "wav"}),
        (
            "monitor",
            ("c", "/f", "gsm", True),
            {"Action": "Monitor", "Channel": "c", "File": "/f", "Format": "gsm", "Mix": "1"},
        ),
        ("stop_monitor", ("c",), {"Action": "StopMonitor", "Channel": "c"}),
        ("pause_monitor", ("c",), {"Action": "PauseMonitor", "Channel": "c"}),
        ("unpause_monitor", ("c",), {"Action": "UnpauseMonitor", "Channel": "c"}),
    ],
)
async def test_action_headers(ami: Manager, peer: Peer, name: str, args: Any, headers: dict[str, str]) -> None:
    assert await getattr(actions, name)(ami, *args) is None
    assert sent(peer) == headers
    peer.script[headers["Action"].lower()] = lambda row: "Response: Error\r\nMessage: No such channel\r\n\r\n"
    with pytest.raises(ActionRefused, match="No such channel"):
        await getattr(actions, name)(ami, *args)


async def test_mixmonitor_tells_its_id(ami: Manager, peer: Peer) -> None:
    peer.script["mixmonitor"] = lambda row: "Response: Success\r\nMixMonitorID: 0xab\r\n\r\n"
    assert await actions.mixmonitor(ami, "c", "/f.wav", "b") == "0xab"
    assert sent(peer) == {
        "Action": "MixMonitor",
        "Channel": "c",
        "File": "/f.wav",
        "Options": "bi(FASTAGI_MIXMONITOR)",
    }
    await actions.mixmonitor(ami, "c", "/f.wav", "i(MINE)")
    assert sent(peer)["Options"] == "i(MINE)"


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("mixmonitor", ("c", "")),
        ("mixmonitor", ("c", "/a/../b")),
        ("mixmonitor", ("c", "/a,b")),
        ("mixmonitor", ("c", "/a", "${X}")),
        ("mixmonitor", ("", "/a")),
        ("hangup", ("/.*/",)),
        ("mixmonitor_mute", ("c", "left")),
        ("mixmonitor_list", ("a b",)),
        ("setvar", ("a b", "x")),
        ("originate", ("c",)),
    ],
)
async def test_action_faults(ami: Manager, peer: Peer, name: str, args: Any) -> None:
    with pytest.raises(BadArgument):
        await getattr(actions, name)(ami, *args)
    assert peer.actions == []


async def test_list_of_mixmonitors(ami: Manager, peer: Peer) -> None:
    rows = ["MixMonitor ID\tFile", "0x1\t/a\t/rx\t/tx", "0x2\t", "total"]
    peer.script["command"] = lambda row: (
        f"Response: Success\r\nActionID: {row['ActionID']}\r\nMessage: Command output follows\r\n"
        + "".join(f"Output: {line}\r\n" for line in rows)
        + "\r\n"
    )
    assert await actions.mixmonitor_list(ami, "c") == [
        actions.MixMonitorRow("0x1", "/a", "/rx", "/tx"),
        actions.MixMonitorRow("0x2", ""),
    ]
    assert sent(peer)["Command"] == "mixmonitor list c"
    rows[:] = ["No channel matching 'c' found."]
    with pytest.raises(ActionRefused, match="No such channel"):
        await actions.mixmonitor_list(ami, "c")


async def test_variables_are_read(ami: Manager, peer: Peer) -> None:
    peer.script["getvar"] = lambda row: "Response: Success\r\nVariable: V\r\nValue: 7\r\n\r\n"
    assert await actions.getvar(ami, "V", "c") == "7"
    assert sent(peer) == {"Action": "Getvar", "Variable": "V", "Channel": "c"}
    assert await actions.getvar(ami, "V") == "7"
    assert "Channel" not in sent(peer)


async def test_channels_are_listed(ami: Manager, peer: Peer) -> None:
    peer.channels = [{"Channel": "a", "Uniqueid": "1.1", "Duration": "00:00:01", "ChannelState": "6"}]
    assert [row.uniqueid for row in await actions.core_show_channels(ami)] == ["1.1"]


async def test_modules_are_looked_for(ami: Manager, peer: Peer) -> None:
    assert await actions.module_check(ami, "app_mixmonitor") is True
    peer.script["modulecheck"] = lambda row: "Response: Error\r\nMessage: Module not loaded\r\n\r\n"
    assert await actions.module_check(ami, "app_mixmonitor") is False
    peer.script["modulecheck"] = lambda row: "Response: Error\r\nMessage: Permission denied\r\n\r\n"
    with pytest.raises(ActionRefused, match="Permission denied"):
        await actions.module_check(ami, "app_mixmonitor")


async def test_user_events_in_one_write(ami: Manager, peer: Peer) -> None:
    await actions.user_event(ami, "Mine", {"A": "1"}, {"A": "2"})
    assert [(row["UserEvent"], row["A"]) for row in peer.actions] == [("Mine", "1"), ("Mine", "2")]
    for key in ("action", "ActionID", "UserEvent"):
        with pytest.raises(BadArgument, match="is taken"):
            await actions.user_event(ami, "Mine", {key: "1"})
    peer.script["userevent"] = lambda row: "Response: Error\r\nMessage: no\r\n\r\n"
    with pytest.raises(ActionRefused, match="no"):
        await actions.user_event(ami, "Mine", {"A": "1"})


async def test_originate_headers(ami: Manager, peer: Peer) -> None:
    peer.script["originate"] = lambda row: (
        f"Response: Success\r\nActionID: {row['ActionID']}\r\nMessage: Originate successfully queued\r\n\r\n"
        f"Event: OriginateResponse\r\nPrivilege: call,all\r\nActionID: {row['ActionID']}\r\nResponse: Success\r\n"
        "Channel: PJSIP/a-1\r\nUniqueid: 1.5\r\nReason: 4\r\n\r\n"
    )
    made = await actions.originate(
        ami, "PJSIP/a", application="Echo", caller_id="200", account="x", variables={"_V": 'a,"b'}, answer_seconds=1.5
    )
    assert made == actions.Originated("PJSIP/a-1", "1.5")
    assert sent(peer) == {
        "Action": "Originate",
        "Channel": "PJSIP/a",
        "Timeout": "1500",
        "Application": "Echo",
        "Data": "",
        "CallerID": "200",
        "Account": "x",
        "Variable": '_V=a\\,\\"b',
        "Async": "true",
    }
    await actions.originate(ami, "PJSIP/a", context="c", exten="1")
    assert (sent(peer)["Context"], sent(peer)["Priority"]) == ("c", "1")
    assert sent(peer).keys().isdisjoint({"CallerID", "Account", "Variable", "Application"})
    with pytest.raises(BadArgument):
        await actions.originate(ami, "PJSIP/a", application="Echo", variables={"a b": "1"})


async def test_failed_originate_tells_why(ami: Manager, peer: Peer) -> None:
    peer.script["originate"] = lambda row: "Response: Error\r\nMessage: Extension does not exist.\r\n\r\n"
    with pytest.raises(ActionRefused, match="Extension does not exist"):
        await actions.originate(ami, "PJSIP/a", application="Echo")
