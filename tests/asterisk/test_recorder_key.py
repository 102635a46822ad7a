"""`[agi] key` with a real Asterisk and the shipped dialplan: who has it is recorded, and it is seen nowhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import structlog

from fastagi.testing import AsteriskServer
from support.call_harness import whole_scene
from support.recorder_harness import recording_scene

KEY = "fedcba9876543210"
TONE = "Local/tone@fastagi-testing/n"


async def run(asterisk: AsteriskServer, *lines: str, **variables: str) -> Any:
    """Run dialplan lines on a call, and then wait for a minute."""
    for priority, line in enumerate((*lines, "Wait(60)"), 1):
        await asterisk.cli(f'dialplan add extension "s,{priority},{line}" into agi-key replace')
    return await asterisk.originate(TONE, context="agi-key", variables=variables, wait=False)


@pytest.mark.parametrize("query", ["", "?key=", "?key=0123456789abcdef", f"?monkey={KEY}"])
async def test_line_without_the_key_is_refused(asterisk: AsteriskServer, tmp_path: Path, query: str) -> None:
    async with recording_scene(asterisk, tmp_path, agi={"key": KEY}) as scene, asterisk.ami() as ami:
        said = "AGISTATUS: ${AGISTATUS},State: ${RECORDING_STATE},Error: ${RECORDING_ERROR}"
        await run(asterisk, f"AGI({scene.url('record/start')}{query})", f"UserEvent(Outcome,{said})")
        await scene.until(lambda: [e for e in ami.events if e.get("UserEvent") == "Outcome"])
        (told,) = [e for e in ami.events if e.get("UserEvent") == "Outcome"]
        assert (told["AGISTATUS"], told["State"]) == ("FAILURE", "ERROR")
        assert f"has {'a wrong' if '01' in query else 'no'} key" in told["Error"]
        assert scene.app.parts.agi.tally.denied == 1
        assert list(scene.recorder.parts.context.jobs) == []


async def test_key_is_seen_nowhere(whole22: AsteriskServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not in what handlers get, not in logs, not in what sinks and variables tell; also where a handler fails."""
    structlog.reset_defaults()
    seen: list[str] = []
    async with whole_scene(whole22, tmp_path, agi={"key": KEY}) as scene:

        @scene.app.route("own")
        async def own(call: Any) -> None:
            seen.append(f"{call.env} {call.params} {call.args} {call!r} {call.name_fields()}")
            raise ValueError("the handler fails")

        await run(
            whole22,
            f"AGI({scene.url('own')}?a=1&key={KEY})",
            "Gosub(sub-record-start\\,s\\,1(keyed))",
            FASTAGI=f"agi://127.0.0.1:{scene.port}",
            FASTAGI_KEY=KEY,
        )
        await scene.until(lambda: any(job.started for job in scene.recorder.parts.context.jobs))
        (job,) = scene.recorder.parts.context.jobs
        async with whole22.ami() as ami:
            for name in ("RECORDING_ID", "RECORDING_FILE", "RECORDING_ERROR"):
                answer = await ami.action("Getvar", {"Channel": job.recording.channel, "Variable": name})
                seen.append(answer["Value"])
        await whole22.cli("channel request hangup all")
        (told,) = await scene.delivered(1)
        seen += [str(dataclasses.asdict(told)), str(job.recording)]
        assert "'a': '1'" in seen[0]
    out, err = capfd.readouterr()
    assert "agi_handler_failed" in out + err
    ledger = [path.read_bytes().decode("latin-1") for path in list(tmp_path.glob("*.db*"))]  # noqa: ASYNC240
    for text in (*seen, out, err, *ledger):
        assert KEY not in text
