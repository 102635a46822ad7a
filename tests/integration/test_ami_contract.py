"""One suite for the scripted peer and for real Asterisks: what tests believe of the peer, Asterisk does as well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from ami_clients import SECONDS, until
from ami_peer import Peer

from fastagi.ami import AmiEvent, Manager, actions
from fastagi.ami.wire import MAX_HEADERS, MAX_LINE
from fastagi.errors import ActionRefused, BadArgument
from fastagi.testing import AsteriskServer


@dataclass
class Place:
    """Where a manager is."""

    port: int
    username: str
    secret: str
    version: str

    def client(self, **options: Any) -> Manager:
        given = {"port": self.port, "username": self.username, "secret": self.secret, **options}
        return Manager(name="contract", **given)


@pytest.fixture(
    params=[
        "scripted",
        pytest.param("asterisk22", marks=pytest.mark.asterisk),
        pytest.param("asterisk16", marks=pytest.mark.asterisk),
    ]
)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "scripted":
        async with Peer() as peer:
            yield Place(peer.port, "fastagi", peer.secret, "22.0.0-scripted")
    else:
        server: AsteriskServer = request.getfixturevalue(request.param)
        yield Place(server.ami_port, server.ami_user, server.ami_secret, server.version.split(".")[0])


@pytest.fixture
async def ami(place: Place) -> AsyncIterator[Manager]:
    client = place.client(events=("UserEvent",))
    await client.start()
    await client.wait_up(SECONDS)
    yield client
    await client.stop()


async def test_it_comes_up(place: Place, ami: Manager) -> None:
    assert ami.connected
    assert ami.version.startswith(place.version)
    assert ami.last_error == ""


async def test_ping(ami: Manager) -> None:
    answer = await ami.send_action({"Action": "Ping"})
    assert (answer.success, answer.ping) == (True, "Pong")


async def test_the_wrong_secret_is_refused(place: Place) -> None:
    client = place.client(secret="wrong")
    await client.start()
    await until(lambda: "refused" in client.last_error)
    assert client.last_error == f"login of '{place.username}' refused: Authentication failed"
    await client.stop()


async def test_an_unknown_action_is_an_answer_and_no_exception(ami: Manager) -> None:
    answer = await ami.send_action({"Action": "NoSuchThing"})
    assert not answer.success
    assert answer.message.startswith("Invalid/unknown command: NoSuchThing")


async def test_no_such_channel(ami: Manager) -> None:
    with pytest.raises(ActionRefused, match=r"^No such channel$") as caught:
        await actions.getvar(ami, "A", "Local/nobody-1")
    assert caught.value.message == "No such channel"


async def test_a_list(ami: Manager) -> None:
    answer = await ami.send_action({"Action": "CoreShowChannels"})
    assert answer[0].eventlist == "start"
    assert answer[-1].event == "CoreShowChannelsComplete"
    assert isinstance(await actions.core_show_channels(ami), list)


async def test_events_that_bear_our_action_id_are_given_out(ami: Manager) -> None:
    got: list[tuple[str, str]] = []
    ami.subscribe(lambda e: got.append((e.name, e["K"])))
    ami.register_event("User*", lambda m, e: got.append((e.userevent, e.k)))
    await actions.user_event(ami, "Contract", {"K": "Müller € '\"\\,;$"})
    await until(lambda: len(got) == 2)
    assert got == [("UserEvent", "Müller € '\"\\,;$"), ("Contract", "Müller € '\"\\,;$")]


async def test_events_come_in_order_and_all_of_them(ami: Manager) -> None:
    got: list[int] = []
    ami.subscribe(lambda e: got.append(int(e["Number"])) if e["UserEvent"] == "Order" else None)
    for number in range(200):
        ami.send_action({"Action": "UserEvent", "UserEvent": "Order", "Number": number})
    await until(lambda: len(got) == 200)
    assert got == list(range(200))


async def test_several_user_events_in_one_go(ami: Manager) -> None:
    got: list[str] = []
    ami.subscribe(lambda e: got.append(e["Number"]) if e["UserEvent"] == "Many" else None)
    sent = ami.actions_sent
    await actions.user_event(ami, "Many", *({"Number": number} for number in range(50)))
    await until(lambda: len(got) == 50)
    assert got == [str(number) for number in range(50)]
    assert ami.actions_sent == sent + 1
    with pytest.raises(BadArgument):
        await actions.user_event(ami, "Many", {"Number": 1}, {"Number": "2\r\nAction: Logoff"})
    await ami.send_action({"Action": "Ping"})
    assert len(got) == 50  # none of them, then


async def test_filters_keep_out_what_nobody_wants(place: Place) -> None:
    """Events of names that begin alike: nothing but the wanted one arrives, and it is found out at the source."""
    talker, listener = place.client(), place.client()
    got: list[AmiEvent] = []
    listener.subscribe(got.append, "UserEv*t")
    for client in (talker, listener):
        await client.start()
        await client.wait_up(SECONDS)
    before = (talker.events_seen, listener.events_seen)
    for number in range(10):
        await actions.user_event(talker, "Flood", {"Number": number})
    await until(lambda: len(got) == 10)
    await talker.send_action({"Action": "Ping"})
    assert (talker.events_seen, listener.events_seen) == (before[0], before[1] + 10)
    late = talker.subscribe(got.append, "UserEvent")
    await actions.user_event(talker, "Flood", {"Number": 10})
    await until(lambda: len(got) == 12)
    late.cancel()
    await talker.stop()
    await listener.stop()


async def test_many_wanted_names_fit(place: Place) -> None:
    client = place.client(events=[f"SomeLongEventName{i:04d}" for i in range(300)] + ["UserEvent"])
    got: list[AmiEvent] = []
    client.subscribe(got.append)
    await client.start()
    await client.wait_up(SECONDS)
    await actions.user_event(client, "Foo", {})
    await until(lambda: got)
    await client.stop()


async def test_the_longest_line_and_the_most_headers_are_read(ami: Manager) -> None:
    got: list[AmiEvent] = []
    ami.subscribe(got.append)
    value = "x" * (MAX_LINE - len("Long: \r\n"))
    many = {f"K{i}": i for i in range(MAX_HEADERS - 4)}
    await actions.user_event(ami, "Long", {"Long": value, **many})
    await until(lambda: got)
    assert got[0]["Long"] == value
    assert got[0][f"K{MAX_HEADERS - 5}"] == str(MAX_HEADERS - 5)
    with pytest.raises(BadArgument):
        await actions.user_event(ami, "Long", {"Long": value + "x"})
    with pytest.raises(BadArgument):
        await actions.user_event(ami, "Long", {f"K{i}": i for i in range(MAX_HEADERS)})


async def test_smuggled_actions_never_leave(ami: Manager) -> None:
    got: list[AmiEvent] = []
    ami.subscribe(got.append)
    for eol in ("\r\n", "\n", "\r"):
        with pytest.raises(BadArgument):
            await actions.user_event(
                ami, "Evil", {"K": f"x{eol}{eol}Action: UserEvent{eol}UserEvent: Smuggled{eol}{eol}"}
            )
    await actions.user_event(ami, "Good", {})
    await until(lambda: got)
    assert [e["UserEvent"] for e in got] == ["Good"]


async def test_many_actions_at_once_get_their_own_answers(ami: Manager) -> None:
    pings = [ami.send_action({"Action": "Ping"}) for _ in range(50)]
    unknown = [ami.send_action({"Action": f"Unknown{i}"}) for i in range(50)]
    assert all([(await p).ping == "Pong" for p in pings])
    for number, future in enumerate(unknown):
        assert f"Unknown{number}." in (await future).message


async def test_command_output(ami: Manager) -> None:
    lines = await actions.command(ami, "core show version")
    assert lines[0]
    message = await ami.send_command("core show version")
    assert list(message.iter_lines()) == lines


async def test_stop_and_start_again(place: Place, ami: Manager) -> None:
    await ami.stop()
    assert not ami.connected
    await ami.start()
    await ami.wait_up(SECONDS)
    assert (await ami.send_action({"Action": "Ping"})).success


async def test_cancelled_actions_leave_nothing(ami: Manager) -> None:
    waiting = [asyncio.ensure_future(ami.send_action({"Action": "Ping"})) for _ in range(20)]
    for future in waiting:
        future.cancel()
    assert ami._link.protocol is not None
    assert (await ami.send_action({"Action": "Ping"})).success
    await until(lambda: ami._link.protocol is not None and not ami._link.protocol.pending)
