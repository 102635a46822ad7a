"""The HTTP side beside a real Asterisk: a real call is found, recorded, stopped and listened to from outside."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import aiohttp
import soundfile
from prometheus_client.parser import text_string_to_metric_families

from fastagi.testing import AsteriskServer
from support.recorder_harness import recording_scene
from support.web_harness import TOKENS

HTTP = {"enabled": True, "port": 0, "tokens": [{"name": "ops", "token": TOKENS["operator"], "role": "operator"}]}


async def test_real_call_is_played_over_http(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    """A real call is recorded and listened to over HTTP."""
    async with recording_scene(asterisk22, tmp_path, http=HTTP) as scene:

        @scene.app.route("talk")
        async def talk(call: Any) -> None:
            await call.exec("Wait", 60)

        http = scene.app.parts.http
        assert http is not None
        headers = {"Authorization": f"Bearer {TOKENS['operator']}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{http.port}", headers=headers) as client:
            async with client.get("/readyz") as response:
                assert response.status == 200, await response.text()
            call = await scene.call("talk", caller_id="4711")
            wanted = {"channel": call.channel, "filename": "web/{caller}", "file_format": "s16bit"}
            await scene.until(lambda: (c := scene.app.parts.pbxs["pbx"].channels.named(call.channel)) and c.up)
            async with client.post("/api/v1/recordings", json=wanted) as response:
                made = await response.json()
                assert response.status == 201, made
            path = f"/api/v1/recordings/{made['id']}"
            job = scene.recorder.parts.context.jobs.get(made["id"])
            await scene.until(lambda: job.size > 44)
            async with client.get("/metrics") as response:
                families = text_string_to_metric_families(await response.text())
                samples = {(s.name, s.labels.get("phase", "")): s.value for f in families for s in f.samples}
            assert samples["fastagi_recordings_active", "active"] == 1
            assert samples["fastagi_ami_up", ""] == 1
            assert samples["fastagi_spool_bytes", ""] > 44
            async with client.post(path + "/stop?wait=30") as response:
                ended = await response.json()
                assert (response.status, ended["cause"], ended["facts"]["silent"]) == (200, "ABORTED", False), ended
            async with client.get(path + "/audio") as response:
                info = soundfile.info(io.BytesIO(await response.read()))
            assert (info.samplerate, info.subtype) == (8000, "PCM_16")
            assert info.duration > 1.0
            async with client.get(path + "/peaks?points=100") as response:
                peaks = (await response.json())["peaks"]
            assert max(high for ((_, high),) in peaks) > 1000, "the far end's tone is heard"
            await scene.delivered(1)
            await scene.hangup(call)
