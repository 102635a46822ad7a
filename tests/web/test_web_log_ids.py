"""A log line about a recording is found by the recording and by its call, whatever part of the server wrote it."""

from __future__ import annotations

import ast
from pathlib import Path

import structlog
from structlog.testing import capture_logs

import fastagi
from fastagi import RecordingMetadata, SinkError
from support.web_harness import web_scene

IDS = {"recording_id", "channel", "uniqueid", "asterisk"}

log = structlog.get_logger(__name__)


class Refusing:
    """Logs a line of its own, and takes nothing: at first for now, then for good."""

    needs_file = False

    def __init__(self) -> None:
        self.calls = 0

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        self.calls += 1
        log.info("sinks_own_line")
        raise SinkError("no", retry=self.calls == 1)


async def test_log_lines_name_their_call(tmp_path: Path) -> None:
    """Commands, deliveries, downloads and deletions are found by their call."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        async with web_scene(tmp_path) as scene:
            scene.app.sink("refuses", Refusing(), default=True)
            call = scene.ami.call()
            await scene.until(lambda: scene.parts.pbxs["pbx"].channels.get(call.uniqueid))
            body = {"channel": call.name, "dtmf_elim": False}
            status, made, _ = await scene.request("POST", "/api/v1/recordings", role="operator", json=body)
            assert status == 201
            path = f"/api/v1/recordings/{made['id']}"
            for command in ("pause", "resume", "stop?wait=20"):
                assert (await scene.request("POST", f"{path}/{command}", role="operator"))[0] == 200
            await scene.until(lambda: scene.parts.courier.stats()["failures"])
            _, body = await scene.get(f"/api/v1/deliveries?recording_id={made['id']}&sink=refuses", role="viewer")
            retry = f"/api/v1/deliveries/{body['deliveries'][0]['id']}/retry"
            assert (await scene.request("POST", retry, role="operator"))[0] == 200
            await scene.until(lambda: scene.parts.courier.stats()["dead"])
            assert (await scene.get(f"{path}/audio", role="viewer"))[0] == 200
            for command in ("hold", "release"):
                assert (await scene.request("POST", f"{path}/{command}?reason=x", role="admin"))[0] == 200
            assert (await scene.request("DELETE", f"{path}?reason=x&force=1", role="admin"))[0] == 200

    wanted = {
        *("recording_started", "recording_commanded", "recording_paused", "recording_resumed", "recording_finished"),
        *("delivered", "delivery_failed", "delivery_retried", "delivery_dead", "sinks_own_line"),
        *("recording_listened", "legal_hold_set", "legal_hold_released", "recording_deleting"),
    }
    ours = {"recording_id": made["id"], "channel": call.name, "uniqueid": call.uniqueid, "asterisk": "pbx"}
    ours["linkedid"] = made["linkedid"]
    told = [line for line in lines if line["event"] in wanted or "recording_id" in line or "delivery_id" in line]
    assert wanted - {line["event"] for line in told} == set()
    for line in told:
        assert {key: line.get(key) for key in ours} == ours, line["event"]


def test_no_line_lacks_its_call() -> None:
    """A line with `recording_id=` alone cannot be found by its call: `**recording.ids` has all ids."""
    # the row could not be read; what sinks log gets the ids from who calls them
    no_row = {"raw_file_not_swept", "side_file_unreadable", "side_file_gone", "side_file_left"}
    alone = no_row | {"sink_failed", "recording_kept"}
    found = set()
    for path in Path(fastagi.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if ast.unparse(node.func.value) not in ("log", "bound"):
                continue
            given = {word.arg for word in node.keywords}
            event = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            if "recording_id" in given and not given >= IDS and event not in alone:
                found.add(f"{path.name}:{node.lineno} {event}")
    assert found == set()
