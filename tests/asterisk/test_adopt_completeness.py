"""Calls that had to be recorded, on a real Asterisk: each is judged once it has ended, also over a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastagi.domain.states import Phase
from fastagi.store.queries import calls
from fastagi.store.queries.calls import AnsweredCall
from fastagi.testing import AsteriskServer
from support.recorder_harness import Scene, recording_scene

REQUIRED = {"required": ["*"]}


def routes(scene: Scene) -> None:
    async def start(call: Any, **options: Any) -> None:
        assert await call.WholeCallRecorder.start("{uniqueid}", **options)

    @scene.app.route("both")
    async def both(call: Any) -> None:
        await start(call)
        await call.exec("Milliwatt")  # the far end echoes it

    @scene.app.route("one-side")
    async def one_side(call: Any) -> None:
        await start(call)
        await call.exec("Wait", 60)

    @scene.app.route("none")
    async def none(call: Any) -> None:
        await call.exec("Wait", 60)

    @scene.app.route("briefly")
    async def briefly(call: Any) -> None:
        await start(call)
        await call.exec("Wait", 1)
        await call.WholeCallRecorder.stop()
        await call.exec("Wait", 60)


async def judged(scene: Scene, count: int) -> dict[str, AnsweredCall]:
    """The ledger's calls by uniqueid, once so many are judged."""
    completeness = scene.recorder.parts.completeness
    await scene.until(lambda: sum(completeness.counts.values()) >= count)
    found, _ = await scene.app.parts.store.read(calls.page)
    return {call.uniqueid: call for call in found}


async def test_calls_are_judged_by_what_was_recorded_of_them(asterisk: AsteriskServer, tmp_path: Path) -> None:
    async with recording_scene(asterisk, tmp_path, recordings=REQUIRED) as scene:
        routes(scene)
        told: list[AnsweredCall] = []
        scene.recorder.parts.completeness.listen(told.append)
        expected = {
            (await scene.call("both", far_end="Local/echo@fastagi-testing/n")): "recorded",
            (await scene.call("one-side")): "one_sided",
            (await scene.call("one-side", far_end="Local/nothing@fastagi-testing/n")): "silent",
            (await scene.call("none")): "missing",
            (await scene.call("briefly")): "short",
        }
        running = scene.recorder.parts.context.jobs
        await scene.until(lambda: len([j for j in running if j.size > 1000]) >= 2)
        await scene.until(lambda: len(list(running)) == 3)  # the brief one has ended
        assert scene.recorder.parts.completeness.open == 10
        shortest = min(call.uniqueid for call, verdict in expected.items() if verdict == "short")
        live = scene.app.parts.pbxs["pbx"].channels.get(shortest)
        await scene.until(lambda: scene.app._clock() - live.answered_at > 6)
        await asterisk.cli("channel request hangup all")
        found = await judged(scene, 10)
        for call, verdict in expected.items():
            row = found[call.uniqueid]
            assert (row.verdict, row.required) == (verdict, True), row
            assert row.ended_at is not None
            assert row.ended_at > row.answered_at
            # the other half of the Local channel was not recorded itself: the call was
            assert (found[call.other_uniqueid].verdict, found[call.other_uniqueid].recording_id) == (
                verdict,
                row.recording_id,
            )
        incomplete, _ = await scene.app.parts.store.read(calls.page, incomplete=True)
        assert len(incomplete) == 8
        assert {c.uniqueid for c in told} == set(found)
        assert scene.recorder.parts.completeness.counts == {
            "recorded": 2, "one_sided": 2, "silent": 2, "missing": 2, "short": 2
        }  # fmt: skip
        assert scene.recorder.parts.completeness.open == 0


async def test_calls_that_end_while_the_server_is_away_are_judged_by_the_next(
    asterisk22: AsteriskServer, tmp_path: Path
) -> None:
    async with recording_scene(asterisk22, tmp_path, recordings={"required": ["adopt-required"]}) as scene:
        for line in ("s,1,Answer()", f"s,2,AGI({scene.url('record/start')},dtmf_elim=no)", "s,3,Milliwatt()"):
            await asterisk22.cli(f'dialplan add extension "{line}" into adopt-required replace')
        recorded = await asterisk22.originate("Local/tone@fastagi-testing/n", context="adopt-required")
        other = await scene.call("record/status")  # of no context that is required, and not recorded
        missed = await asterisk22.originate("Local/nothing@fastagi-testing/n", context="adopt-required", exten="s")
        jobs = scene.recorder.parts.context.jobs
        await scene.until(lambda: [j.phase for j in jobs] == [Phase.ACTIVE] * 2)
        await scene.app.parts.commands.stop(jobs.on_channel("pbx", missed.uniqueid)[0])
        completeness = scene.recorder.parts.completeness
        await scene.until(lambda: all(j.size > 1000 for j in jobs))
        assert completeness.open == 2
        await scene.app.stop(5)
        for call in (recorded, other):
            await scene.hangup(call)
        await scene.restart()
        await scene.until(lambda: scene.recorder.parts.completeness.open == 1)
        found = await judged(scene, 1)
        assert (found[recorded.uniqueid].verdict, found[missed.uniqueid].verdict) == ("recorded", "")
        assert set(found) == {recorded.uniqueid, missed.uniqueid}
        await scene.hangup(missed)
        assert (await judged(scene, 2))[missed.uniqueid].verdict in ("short", "silent")


async def test_a_verdict_names_the_refused_start(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    """The reason stood in the log only; it is known after a restart, too."""
    async with recording_scene(asterisk22, tmp_path, recordings=REQUIRED) as scene:
        url = scene.url("record/start")
        for line in ("s,1,Answer()", f"s,2,AGI({url},max_bytes=many)", "s,3,Milliwatt()"):
            await asterisk22.cli(f'dialplan add extension "{line}" into refused replace')
        for line in ("early,1,NoOp()", f"early,2,AGI({url})", "early,3,Answer()", "early,4,Milliwatt()"):
            await asterisk22.cli(f'dialplan add extension "{line}" into refused replace')
        wrong = await asterisk22.originate("Local/tone@fastagi-testing/n", context="refused")
        early = await asterisk22.originate("Local/early@refused/n", application="Wait", data="60")
        refused = await asterisk22.originate("Local/tone@fastagi-testing/n", context="refused", exten="s")
        completeness = scene.recorder.parts.completeness
        await scene.until(lambda: completeness.open == 6)  # both halves of each

        async def known() -> bool:
            found, _ = await scene.app.parts.store.read(calls.page)
            return len([c for c in found if c.reason]) == 3

        await scene.until(known)
        await scene.hangup(wrong)
        await scene.hangup(early)
        found = await judged(scene, 4)
        assert found[wrong.uniqueid].verdict == found[early.other_uniqueid].verdict == "missing"
        assert "; a start was refused: max_bytes='many'" in found[wrong.uniqueid].reason
        assert "answer it before recording" in found[early.other_uniqueid].reason
        await scene.restart()
        await scene.hangup(refused)
        assert "max_bytes='many'" in (await judged(scene, 2))[refused.uniqueid].reason


async def test_waiting_unbridged_counts_for_nothing(asterisk: AsteriskServer, tmp_path: Path) -> None:
    """FreePBX's option b writes nothing while a caller waits: that was "stalled", and then "short"."""
    settings = {"required": ["bridged-only"], "adopt": True, "stalled_seconds": 2}
    async with recording_scene(asterisk, tmp_path, recordings=settings) as scene:
        file = tmp_path / "spool" / "${UNIQUEID}.wav"
        lines = ["Answer()", f"MixMonitor({file},b)", "Wait(6)", "Dial(Local/tone@fastagi-testing/n,,S(4))", "Wait(60)"]
        for exten, steps in {"s": lines, "never": [*lines[:3], "Wait(60)"], "open": ["Answer()", *lines[2:3]]}.items():
            for priority, line in enumerate(steps, 1):
                await asterisk.cli(f'dialplan add extension "{exten},{priority},{line}" into bridged-only replace')
        far_end = "Local/echo@fastagi-testing/n"
        talks = await asterisk.originate(far_end, context="bridged-only")
        never = await asterisk.originate(far_end, context="bridged-only", exten="never")
        jobs = scene.recorder.parts.context.jobs
        await scene.until(lambda: len(list(jobs)) == 2)
        job = jobs.on_channel("pbx", talks.uniqueid)[0]
        await scene.until(lambda: (job.bridged_seconds or 0) > 3, 40)  # it has come and gone
        assert not any(j.alarms for j in jobs)
        for call in (talks, never):
            await scene.hangup(call)
        found = await judged(scene, 2)
        assert (found[talks.uniqueid].verdict, found[talks.uniqueid].reason) == ("recorded", "")
        assert (found[never.uniqueid].verdict, found[never.uniqueid].reason) == ("recorded", "")


async def test_without_contexts_nothing_is_kept(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    async with recording_scene(asterisk22, tmp_path) as scene:
        routes(scene)
        await scene.call("none")
        assert scene.recorder.parts.completeness.open == 0
        await asterisk22.cli("channel request hangup all")
        await scene.until(lambda: len(scene.app.parts.pbxs["pbx"].channels) == 0)
        assert await scene.app.parts.store.read(calls.page) == ([], None)
