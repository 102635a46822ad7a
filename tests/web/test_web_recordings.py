"""Recordings, deliveries and calls over HTTP: commanded, listed, held, deleted."""

# ruff: noqa: ASYNC240  # one small file, in a test

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fastagi.domain.states import Phase
from fastagi.errors import BadArgument, SinkError
from fastagi.store.queries import calls, recordings
from fastagi.store.queries.calls import AnsweredCall
from support.delivery_harness import finish_many, recording
from support.web_harness import web_scene


async def test_api_controls_a_recording(tmp_path: Path) -> None:
    """A channel is recorded, paused, resumed and stopped from outside."""
    async with web_scene(tmp_path) as scene:
        call = scene.ami.call()
        await scene.until(lambda: scene.parts.pbxs["pbx"].channels.get(call.uniqueid))
        status, body = await scene.get("/api/v1/channels", role="viewer")
        assert [c["channel"] for c in body["channels"]] == [call.name]
        wanted = {"channel": call.name, "filename": "api/{caller}", "file_format": "s16bit", "dtmf_elim": False}
        status, made, response = await scene.request("POST", "/api/v1/recordings", role="operator", json=wanted)
        assert (status, made["state"], made["caller"]) == (201, "RECORDING", "1001")
        path = f"/api/v1/recordings/{made['id']}"
        assert response.headers["Location"] == path
        assert (await scene.get("/api/v1/channels", role="viewer"))[1]["channels"][0]["recordings"] == [made["id"]]

        status, body, _ = await scene.request("POST", "/api/v1/recordings", role="operator", json=wanted)
        assert status == 409, "it is recorded already"
        assert "already" in body["error"]

        status, body, _ = await scene.request("POST", path + "/pause", role="operator", json={"seconds": 600})
        assert (status, body["phase"]) == (200, "paused")
        assert scene.parts.recorder.parts.context.jobs.get(made["id"]).resume_timer is not None
        status, body, _ = await scene.request("POST", path + "/resume", role="operator")
        assert (status, body["phase"]) == (200, "active")
        await scene.until(lambda: scene.parts.recorder.parts.context.jobs.get(made["id"]).size > 44)

        status, body, _ = await scene.request("POST", path + "/stop?wait=20", role="operator")
        assert (status, body["state"], body["cause"]) == (200, "IDLE", "ABORTED")
        assert Path(body["file_path"]).relative_to(scene.directory) == Path("api/1001.wav")
        status, again, _ = await scene.request("POST", path + "/stop", role="operator")
        assert (status, again["id"], again["cause"]) == (200, made["id"], "ABORTED"), "stopping is idempotent"
        status, body, _ = await scene.request("POST", path + "/pause", role="operator")
        assert (status, "has ended" in body["error"]) == (409, True)

        await scene.until(lambda: scene.sink.got)
        await scene.until(lambda: scene.parts.courier.stats()["delivered"])
        status, body = await scene.get(path, role="viewer")
        assert body["sha256"] == again["sha256"] != None  # noqa: E711
        assert [(d["sink"], d["status"]) for d in body["deliveries"]] == [("recording_sink", "delivered")]
        happened = [e["event"] for e in body["journal"]]
        assert happened[:2] == ["requested", "started"]
        assert {"paused", "resumed", "stop", "finished", "delivered"} <= set(happened)
        assert scene.parts.recorder.parts.context.tasks.died == 0, "a client's mistake is no fault of the program"


async def test_failed_recording_says_why(tmp_path: Path) -> None:
    """A recording that asterisk could not make says why."""
    async with web_scene(tmp_path) as scene:
        call = scene.ami.call()
        await scene.until(lambda: scene.parts.pbxs["pbx"].channels.get(call.uniqueid))
        scene.spool.rmdir()
        wanted = {"channel": call.uniqueid}
        status, body, _ = await scene.request("POST", "/api/v1/recordings", role="operator", json=wanted)
        assert status == 502
        assert "spool" in body["error"]
        assert body["recording"]["state"] == "ERROR"


async def test_start_mistakes_are_one_line_each(tmp_path: Path) -> None:
    async with web_scene(tmp_path) as scene:
        call = scene.ami.call()
        await scene.until(lambda: scene.parts.pbxs["pbx"].channels.get(call.uniqueid))
        for body, status, word in (
            ({}, 400, "channel is missing"),
            ({"channel": "PJSIP/nobody-1"}, 409, "no channel"),
            ({"channel": call.name, "file_format": "tape"}, 400, "alaw"),
            ({"channel": call.name, "rate": "8000"}, 400, "whole number"),
            ({"channel": call.name, "filename": "../../etc/cron.d/x"}, 400, "leaves the recordings directory"),
            ({"channel": call.name, "filename": "/etc/cron.d/x"}, 400, "relative"),
            ({"channel": call.name, "sink": "nobody"}, 400, "recording_sink"),
            ({"channel": call.name, "asterisk": "other"}, 400, "pbx"),
            ({"channel": call.name, "encryption": "aes"}, 400, "no key"),
            ({"channel": call.name + "\r\nAction: Originate"}, 409, "no channel"),
        ):
            found, answer, _ = await scene.request("POST", "/api/v1/recordings", role="operator", json=body)
            assert (found, word in answer["error"]) == (status, True), (body, found, answer)
        assert scene.ami.connections == 1
        assert not [a for a in scene.ami.actions if a["Action"] in ("MixMonitor", "Originate")], "nothing was sent"
        scene.ami.refusing = True
        scene.ami.drop()
        await scene.until(lambda: not scene.parts.pbxs["pbx"].up)
        found, answer, _ = await scene.request(
            "POST", "/api/v1/recordings", role="operator", json={"channel": call.name}
        )
        assert (found, "manager connection" in answer["error"]) == (503, True)
        assert scene.parts.recorder.parts.context.tasks.died == 0


@pytest.mark.parametrize("body", [{"filename": "\ud800"}, {"recorder": "x\udcff"}, {"\ud800": 1}], ids=ascii)
async def test_half_characters_are_refused(tmp_path: Path, body: dict[str, str]) -> None:
    """A file name with half of a surrogate pair was answered with 500."""
    async with web_scene(tmp_path) as scene:
        call = scene.ami.call()
        given = {"channel": call.name, **body}
        status, answer, _ = await scene.request("POST", "/api/v1/recordings", role="operator", json=given)
        assert (status, "surrogate" in answer["error"]) == (400, True)
        with pytest.raises(BadArgument, match="surrogate"):
            await scene.record(call, "calls/\ud800")


async def test_list_pages_without_gaps(tmp_path: Path) -> None:
    """A list is filtered, searched and paged without gap or repetition."""
    async with web_scene(tmp_path, up=False) as scene:
        scene.sink.fault = SinkError("later", retry_after=3600)
        await scene.parts.store.run(finish_many, scene.parts.courier, 0, 25, "nobody-here", time.time())
        seen: list[str] = []
        path = "/api/v1/recordings?limit=10"
        while True:
            status, body = await scene.get(path, role="viewer")
            assert status == 200
            seen += [r["id"] for r in body["recordings"]]
            if body["next"] is None:
                break
            path = f"/api/v1/recordings?limit=10&cursor={body['next']}"
        assert seen == [f"rec-{n:06}" for n in range(24, -1, -1)]
        for query, count in (
            ("search=CALL-1", 11),  # call-1, call-10 to call-19
            ("search=%25", 0),  # a percent sign is itself
            ("uniqueid=1700000000.7", 1),
            ("state=IDLE", 25),
            ("state=ERROR", 0),
            ("deleted=yes", 0),
            ("since=2001-01-01T00:00:00Z", 25),
            ("until=2001-01-01T00:00:00%2B01:00", 0),
            ("since=4000000000", 0),
        ):
            status, body = await scene.get(f"/api/v1/recordings?limit=100&{query}", role="viewer")
            assert (status, len(body["recordings"])) == (200, count), query
        assert (await scene.get("/api/v1/recordings/rec-nothing", role="viewer"))[0] == 404


async def test_foreign_recording_is_not_commanded(tmp_path: Path) -> None:
    """A recording of another server is not commanded here."""
    async with web_scene(tmp_path, up=False) as scene:
        from fastagi.store.queries import recordings
        from support.delivery_harness import recording

        theirs = recording(1, node="there", phase=Phase.REQUESTED)
        await scene.parts.store.run(recordings.insert, theirs)
        for what in ("stop", "pause", "resume"):
            status, body, _ = await scene.request("POST", f"/api/v1/recordings/{theirs.id}/{what}", role="operator")
            assert (status, "there" in body["error"]) == (409, True)
            status, _, _ = await scene.request("POST", f"/api/v1/recordings/rec-nothing/{what}", role="operator")
            assert status == 404


async def test_long_stop_is_answered_early(tmp_path: Path) -> None:
    """A stop that takes long is answered before it has ended."""
    async with web_scene(tmp_path) as scene:
        job = await scene.record(scene.ami.call())
        await scene.until(lambda: scene.grown() > 0)
        scene.ami.muted = True
        status, body, _ = await scene.request("POST", f"/api/v1/recordings/{job.id}/stop?wait=0", role="operator")
        assert (status, body["phase"], body["cause"]) == (202, "stopping", "NONE")
        scene.ami.muted = False
        scene.ami.drop()
        assert await job.wait(30)


async def test_hold_blocks_deletion(tmp_path: Path) -> None:
    """A hold keeps a recording, and a deletion takes file and key."""
    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded()
        await scene.until(lambda: scene.parts.courier.stats()["delivered"])
        path = f"/api/v1/recordings/{recording}"
        file = Path((await scene.get(path, role="viewer"))[1]["file_path"])
        assert file.exists()

        status, body, _ = await scene.request("POST", path + "/hold", role="admin")
        assert (status, "reason is missing" in body["error"]) == (400, True)
        status, body, _ = await scene.request("POST", path + "/hold?reason=case%2017", role="admin")
        assert (status, body["legal_hold"]) == (200, True)
        status, body, _ = await scene.request("DELETE", path + "?reason=old&force=yes", role="admin")
        assert (status, "hold" in body["error"]) == (409, True)
        assert file.exists()
        status, body, _ = await scene.request("POST", path + "/release?reason=case+closed", role="admin")
        assert (status, body["legal_hold"]) == (200, False)
        status, body, _ = await scene.request("POST", path + "/release?reason=case+closed", role="admin")
        assert (status, "is not on legal hold" in body["error"]) == (409, True)

        status, body, _ = await scene.request("DELETE", path + "?reason=GDPR+request", role="admin")
        assert status == 200
        assert body["deleted_at"] is not None
        assert not file.exists()
        status, body = await scene.get(path, role="viewer")
        told = [(e["event"], e["detail"].get("who")) for e in body["journal"] if e["detail"].get("who")]
        assert ("hold_set", "the-admin") in told
        assert any(who == "the-admin" and "delet" in event for event, who in told)
        status, body = await scene.get(path + "/audio", role="admin")
        assert status == 410
        for verb, end in (("DELETE", ""), ("POST", "/hold"), ("POST", "/release")):
            status, _, _ = await scene.request(verb, f"/api/v1/recordings/rec-nothing{end}?reason=x", role="admin")
            assert status == 404


async def test_deletion_needs_a_reason(tmp_path: Path) -> None:
    """Without a reason nothing is touched; with one the journal has who and why."""
    async with web_scene(tmp_path) as scene:
        recording = await scene.recorded()
        await scene.until(lambda: scene.parts.courier.stats()["delivered"])
        path = f"/api/v1/recordings/{recording}"
        for none in ("", "?reason=", "?reason=%20%20", "?force=yes"):
            status, body, _ = await scene.request("DELETE", path + none, role="admin")
            assert (status, body["error"][:18]) == (400, "reason is missing:"), none
        status, body, _ = await scene.request("DELETE", path, role="admin", json={"reason": "in the body"})
        assert (status, "it goes into the URL" in body["error"]) == (400, True)
        _, body = await scene.get(path, role="viewer")
        assert Path(body["file_path"]).exists()
        assert body["deleted_at"] is None
        assert "deleting" not in [e["event"] for e in body["journal"]]

        status, body, _ = await scene.request("DELETE", path + "?reason=GDPR+request+17", role="admin")
        assert (status, Path(body["file_path"]).exists()) == (200, False)
        _, body = await scene.get(path, role="viewer")
        (told,) = [e["detail"] for e in body["journal"] if e["event"] == "deleting"]
        assert (told["who"], told["reason"]) == ("the-admin", "GDPR request 17")


async def test_dead_delivery_can_be_retried(tmp_path: Path) -> None:
    """A dead delivery is listed with its attempts and tried again."""
    async with web_scene(tmp_path) as scene:
        scene.sink.fault = SinkError("no such customer", retry=False)
        recording = await scene.recorded()
        await scene.until(lambda: scene.parts.courier.stats()["dead"])
        status, body = await scene.get("/api/v1/deliveries?status=dead", role="viewer")
        (dead,) = body["deliveries"]
        assert (dead["recording_id"], dead["last_error"]) == (recording, "no such customer")
        path = f"/api/v1/deliveries/{dead['id']}"
        status, body = await scene.get(path, role="viewer")
        assert [(a["n"], a["ok"], a["error"]) for a in body["attempts"]] == [(1, False, "no such customer")]

        scene.sink.fault = None
        status, body, _ = await scene.request("POST", path + "/retry", role="operator")
        assert status == 200
        await scene.until(lambda: scene.sink.got)
        await scene.until(lambda: scene.parts.courier.stats()["delivered"])
        status, body, _ = await scene.request("POST", path + "/retry", role="operator")
        assert (status, "delivered" in body["error"]) == (409, True)
        status, _, _ = await scene.request("POST", "/api/v1/deliveries/dlv-nothing/retry", role="operator")
        assert status == 404
        assert (await scene.get("/api/v1/deliveries/dlv-nothing", role="viewer"))[0] == 404


async def test_parked_delivery_moves_to_other_sink(tmp_path: Path) -> None:
    """A parked delivery says what is wrong and goes to another sink."""
    async with web_scene(tmp_path) as scene:
        await scene.parts.store.run(finish_many, scene.parts.courier, 1, 1, "old", time.time())
        await scene.parts.courier._upkeep.round()
        status, body = await scene.get("/api/v1/deliveries?status=parked", role="viewer")
        (parked,) = body["deliveries"]
        assert parked["hint"].startswith("no server that runs has a sink 'old'")
        path = f"/api/v1/deliveries/{parked['id']}/retry"
        status, body, _ = await scene.request("POST", path, role="operator")
        assert status == 409
        assert f"{parked['id']} is parked: {parked['hint']} (there are: recording_sink)" in body["error"]
        status, body, _ = await scene.request("POST", path, role="operator", json={"to": "odl"})
        assert (status, "has a sink 'odl'" in body["error"]) == (409, True)
        status, body, _ = await scene.request("POST", path, role="operator", json={"to": "recording_sink"})
        assert (status, body["sink"], body["hint"]) == (200, "recording_sink", "")
        await scene.until(lambda: [m.extra["recording_id"] for m in scene.sink.got] == [parked["recording_id"]])


async def test_incomplete_calls_are_found(tmp_path: Path) -> None:
    """Calls that had to be recorded and were not are found."""
    async with web_scene(tmp_path, up=False) as scene:

        def unit(conn: object) -> None:
            for n in range(5):
                call = AnsweredCall("pbx", f"1.{n}", channel=f"SIP/{n}", answered_at=1000.0 + n, required=True)
                calls.answered(conn, call)  # type: ignore[arg-type]
                calls.ended(conn, "pbx", f"1.{n}", 2000.0)  # type: ignore[arg-type]
                verdict = "missing" if n == 3 else calls.RECORDED
                calls.judged(conn, "pbx", f"1.{n}", verdict, reason="nobody asked")  # type: ignore[arg-type]

        await scene.parts.store.run(unit)
        status, body = await scene.get("/api/v1/calls?incomplete=yes", role="viewer")
        assert status == 200
        assert [(c["uniqueid"], c["verdict"], c["reason"]) for c in body["calls"]] == [
            ("1.3", "missing", "nobody asked")
        ]
        status, body = await scene.get("/api/v1/calls?limit=2", role="viewer")
        assert [c["uniqueid"] for c in body["calls"]] == ["1.4", "1.3"]
        status, body = await scene.get(f"/api/v1/calls?limit=2&cursor={body['next']}", role="viewer")
        assert [c["uniqueid"] for c in body["calls"]] == ["1.2", "1.1"]


async def test_live_call_lists_its_recordings(tmp_path: Path) -> None:
    """A call that is up is listed with its recordings."""
    async with web_scene(tmp_path) as scene:
        before = scene.ami.call(caller="1002")
        job = await scene.record(before)
        await scene.until(lambda: scene.grown() > 0)
        await scene.parts.recorder.stop(job)
        call = scene.ami.call(caller="1003")
        job2 = await scene.record(call, "calls/two")
        status, body = await scene.get("/api/v1/calls", role="viewer")
        assert (status, body["next"], body["down"]) == (200, None, [])
        shown = [(c["uniqueid"], c["caller"], c["recordings"], c["required"], c["ended_at"]) for c in body["calls"]]
        assert shown == [
            (call.uniqueid, "1003", [job2.id], False, None),
            (before.uniqueid, "1002", [job.id], False, None),
        ]
        assert {(c["id"], c["verdict"], c["channel"] != "", c["answered_at"] is None) for c in body["calls"]} == {
            (None, None, True, False)
        }
        for query, wanted in (
            (f"uniqueid={before.uniqueid}", [before.uniqueid]),
            ("incomplete=yes", []),
            ("asterisk=other", []),
            ("since=2090-01-01", []),
            ("until=2020-01-01", []),
        ):
            status, body = await scene.get(f"/api/v1/calls?{query}", role="viewer")
            assert (status, [c["uniqueid"] for c in body["calls"]]) == (200, wanted), query


async def test_live_calls_come_first(tmp_path: Path) -> None:
    """Calls that are up come before the ledger's, and pages lose none of these."""
    async with web_scene(tmp_path, recordings={"required": ["must"]}) as scene:

        def unit(conn: object) -> None:
            for n in range(3):
                calls.answered(conn, AnsweredCall("pbx", f"1.{n}", answered_at=1000.0 + n, required=True))  # type: ignore[arg-type]
                calls.ended(conn, "pbx", f"1.{n}", 2000.0)  # type: ignore[arg-type]

        await scene.parts.store.run(unit)
        followed = scene.ami.call(context="must")
        free = [scene.ami.call().uniqueid for _ in range(2)]

        async def in_the_ledger() -> bool:
            return await scene.parts.store.read(calls.get, "pbx", followed.uniqueid) is not None

        await scene.until(in_the_ledger)
        await scene.until(lambda: len(scene.parts.pbxs["pbx"].channels) == 3)
        for limit in (1, 2, 3, 50):
            found, cursor = [], ""
            while True:
                _, body = await scene.get(f"/api/v1/calls?limit={limit}{cursor}", role="viewer")
                assert len(body["calls"]) <= limit
                found += [c["uniqueid"] for c in body["calls"]]
                if body["next"] is None:
                    break
                cursor = f"&cursor={body['next']}"
            up = min(limit, 2)
            assert set(found[:up]) <= set(free)
            assert found[up:] == [followed.uniqueid, "1.2", "1.1", "1.0"], "each once"
            assert body["up"] == 2


async def test_reused_uniqueid_matches_no_recording(tmp_path: Path) -> None:
    """A recording under a uniqueid that was used before does not belong to this call."""
    async with web_scene(tmp_path, up=False) as scene:
        r = replace(recording(1), requested_at=100.0, started_at=100.0, ended_at=150.0)
        await scene.parts.store.run(recordings.insert, r)
        found = [
            AnsweredCall("pbx", r.uniqueid, answered_at=90.0, ended_at=160.0),
            AnsweredCall("pbx", r.uniqueid, answered_at=200.0),
            AnsweredCall("pbx", r.uniqueid, answered_at=10.0, ended_at=50.0),
            AnsweredCall("other", r.uniqueid, answered_at=90.0),
        ]
        assert await scene.parts.store.read(calls.recorded_on, found) == [[r.id], [], [], []]
        assert await scene.parts.store.read(calls.recorded_on, []) == []


async def test_slow_search_holds_no_probe(tmp_path: Path) -> None:
    """A slow search holds two places and no probe."""
    async with web_scene(tmp_path) as scene:
        store, real = scene.parts.store, scene.parts.store.search
        running, most, go = 0, 0, asyncio.Event()

        async def slow(unit: object, *args: object, **more: object) -> object:
            nonlocal running, most
            if getattr(unit, "__name__", "") == "page":
                running += 1
                most = max(most, running)
                await go.wait()
                running -= 1
            return await real(unit, *args, **more)

        store.search = slow
        try:
            searches = [asyncio.create_task(scene.get("/api/v1/recordings?search=x", role="viewer")) for _ in range(6)]
            await scene.until(lambda: running == 2)
            assert (await scene.get("/readyz"))[0] == 200
            go.set()
            assert {status for status, _ in await asyncio.gather(*searches)} == {200}
            assert most == 2
        finally:
            store.search = real
