"""The other sinks, called directly: local, composite, object store, vCon, command."""

# ruff: noqa: ASYNC240  (a test may wait for a small file)

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web

from fastagi.delivery.keys import DEFAULT_TEMPLATE, check_template, key_of
from fastagi.delivery.sink import CurrentDelivery, RecordingSink, current_delivery
from fastagi.delivery.sinks.command import CommandSink
from fastagi.delivery.sinks.composite import CompositeSink
from fastagi.delivery.sinks.local import LocalFileSink
from fastagi.delivery.sinks.media import media_type
from fastagi.delivery.sinks.objectstore import ObjectStoreSink
from fastagi.delivery.sinks.vcon import VconSink, vcon_uuid
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import BadArgument, SinkError


def metadata(path: Path | str = "/rec/a.wav", **extra: Any) -> RecordingMetadata:
    facts = {
        "recording_id": "rec-1",
        "started_at": "2026-01-02T03:04:05.678Z",
        "ended_at": "2026-01-02T03:05:05.000Z",
        "caller": "+15551234",
        "called": "alice",
        **extra,
    }
    return RecordingMetadata("pbx-1.2", "calls/a", str(path), 59.3, "wav", facts)


LISTED = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Name>bucket</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"""


def s3_options(runner: web.AppRunner) -> dict[str, Any]:
    """What reaches a bucket that is played on this machine."""
    return {
        "endpoint": f"http://127.0.0.1:{runner.addresses[0][1]}",
        "access_key_id": "a",
        "secret_access_key": "b",
        "region": "r",
        "allow_http": True,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.wav"
    path.parent.mkdir()
    path.write_bytes(os.urandom(300_000))
    return path


async def test_local_sink_touches_nothing() -> None:
    """The local sink logs a line and touches nothing."""
    with structlog.testing.capture_logs() as lines:
        await LocalFileSink().on_recording_complete(metadata("/nowhere/a.wav"))
    assert [(line["event"], line["log_level"], line["recording_id"]) for line in lines] == [
        ("recording_kept", "debug", "rec-1")
    ]
    assert str(LocalFileSink().base_dir) == "/var/spool/asterisk/recording"


class Plain:
    def __init__(self) -> None:
        self.got: list[RecordingMetadata] = []

    def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        self.got.append(metadata)


async def test_composite_isolates_its_children() -> None:
    """A composite isolates its children and runs them side by side."""
    met = asyncio.Barrier(2)

    class Meets(RecordingSink):
        done = False

        async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
            await asyncio.wait_for(met.wait(), 5)
            self.done = True

    class Raises(RecordingSink):
        async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
            raise RuntimeError("hunter")

    a, b, plain = Meets(), Meets(), Plain()
    sink = CompositeSink(a, CompositeSink(Raises(), CompositeSink(b)), plain)
    with structlog.testing.capture_logs() as lines:
        await sink.on_recording_complete(metadata())
    assert a.done
    assert b.done
    assert len(plain.got) == 1
    assert [(line["event"], line["sink"]) for line in lines] == [("sink_failed", "Raises")]
    assert [type(leaf).__name__ for leaf in sink.leaves()] == ["Meets", "Raises", "Meets", "Plain"]


def test_a_composite_takes_only_sinks() -> None:
    with pytest.raises(BadArgument, match="str is no sink: it has no on_recording_complete"):
        CompositeSink(LocalFileSink(), "https://h")  # type: ignore[arg-type]
    assert list(CompositeSink().leaves()) == []


def test_the_abstract_sink_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        RecordingSink()  # type: ignore[abstract]


# -- keys


def test_keys_are_stable_and_contained() -> None:
    """Keys are the same each time and stay below their place."""
    template = "{date:%Y/%m}/{caller}/{name}-{recording_id}.{suffix}"
    assert key_of(template, metadata()) == "2026/01/+15551234/calls_a-rec-1.wav"
    nasty = metadata("/rec/x.wav.age", caller="../../etc", called="a\x00b\r\n", recording_id="../rec")
    assert key_of("{caller}/{called}/{recording_id}.{suffix}", nasty) == "_.._etc/a_b__/_rec.age"
    assert key_of("{caller}", metadata(caller="")) == "unknown"


@pytest.mark.parametrize(
    "template", ["", "/a", "a//b", "../{name}", "a/../b", "{colour}", "a\\b", "a/./b", "{date:%}/\n"]
)
def test_template_leaving_its_place_is_refused(template: str) -> None:
    with pytest.raises(BadArgument):
        check_template(template)


# -- object store


async def test_stored_file_is_checked(file: Path, tmp_path: Path) -> None:
    """A file is stored and checked, and its key is deterministic."""
    out = tmp_path / "out"
    sink = ObjectStoreSink(f"file://{out}", with_metadata=True)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for _ in range(2):  # idempotent
        await sink.on_recording_complete(metadata(file, sha256=digest))
    stored = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert stored == ["2026/01/02/rec-1.wav", "2026/01/02/rec-1.wav.json"]
    assert (out / stored[0]).read_bytes() == file.read_bytes()
    assert json.loads((out / stored[1]).read_bytes())["session_id"] == "pbx-1.2"
    assert file.exists()


@pytest.mark.parametrize(
    ("place", "template", "key"),
    [
        ("2026", DEFAULT_TEMPLATE, "2026/01/02/rec-1.wav"),
        ("2026/01", DEFAULT_TEMPLATE, "2026/01/02/rec-1.wav"),
        ("2025", DEFAULT_TEMPLATE, "2025/2026/01/02/rec-1.wav"),
        ("2026/pbx1", DEFAULT_TEMPLATE, "2026/pbx1/2026/01/02/rec-1.wav"),
        ("15551234", "{caller}/{recording_id}", "15551234/15551234/rec-1"),
    ],
)
async def test_the_year_is_not_doubled(file: Path, tmp_path: Path, place: str, template: str, key: str) -> None:
    """``s3://calls/2026`` gave ``calls/2026/2026/01/02/…``."""
    await ObjectStoreSink(f"file://{tmp_path}/out/{place}", template).on_recording_complete(
        metadata(file, caller="15551234")
    )
    assert [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()] == [key]


async def test_a_large_file_goes_in_parts(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastagi.delivery.sinks.objectstore.PART_BYTES", 64 * 1024)
    await ObjectStoreSink(f"file://{tmp_path}/out", "{file}").on_recording_complete(metadata(file))
    assert (tmp_path / "out" / "a.wav").read_bytes() == file.read_bytes()


async def test_changed_file_is_not_stored(file: Path, tmp_path: Path) -> None:
    """A file that is not what was recorded is not stored."""
    sink = ObjectStoreSink(f"file://{tmp_path}/out", delete_local=True)
    with pytest.raises(SinkError, match="SHA-256 differs"):
        await sink.on_recording_complete(metadata(file, sha256="00"))
    with pytest.raises(SinkError, match="No such file") as caught:
        await sink.on_recording_complete(metadata("/nowhere/a.wav"))
    assert caught.value.retry
    assert file.exists()


@pytest.mark.parametrize("verify", ["content", "size"])
async def test_damaged_upload_is_tried_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: Any
) -> None:
    """An object that arrived damaged is tried again, and the local file is not deleted."""
    import obstore

    put = obstore.put_async

    async def damaging(store: Any, key: str, data: Any, **kwargs: Any) -> Any:
        return await put(store, key, file.read_bytes()[:-1], **kwargs)

    monkeypatch.setattr(obstore, "put_async", damaging)
    sink = ObjectStoreSink(f"file://{tmp_path}/out", delete_local=True, verify=verify)
    with pytest.raises(SinkError, match="arrived") as caught:
        await sink.on_recording_complete(metadata(file))
    assert caught.value.retry
    assert file.exists()


async def test_delete_local_only_when_called_directly(file: Path, tmp_path: Path) -> None:
    """The sink itself deletes the local file only without a server: there the delivery worker does it."""
    sink = ObjectStoreSink(f"file://{tmp_path}/out", delete_local=True)
    token = current_delivery.set(CurrentDelivery("dlv-1", 1, "rec-1"))
    await sink.on_recording_complete(metadata(file))
    current_delivery.reset(token)
    assert file.exists(), "a sister may still need it: the courier deletes"
    await sink.on_recording_complete(metadata(file))
    assert not file.exists()


@pytest.mark.parametrize(
    ("listing", "reading", "fault"),
    [
        ((200, LISTED), (500, ""), None),
        ((404, "<Error><Code>NoSuchBucket</Code></Error>"), (404, ""), "there is no such bucket"),
        ((404, ""), (404, ""), "there is no such bucket"),
        ((403, "<Error><Code>AccessDenied</Code></Error>"), (404, "<Error><Code>NoSuchKey</Code></Error>"), None),
        ((403, ""), (404, "<Error><Code>NoSuchBucket</Code></Error>"), "there is no such bucket"),
        ((403, ""), (403, ""), "s3://bucket/calls: "),
    ],
    ids=["there", "gone", "gone without a word", "no right to list", "gone, no right to list", "wrong credentials"],
)
async def test_a_missing_bucket_is_found(listing: tuple[int, str], reading: tuple[int, str], fault: str | None) -> None:
    """A bucket that does not exist "answered"."""

    async def s3(request: web.Request) -> web.Response:
        status, text = listing if "list-type" in request.query else reading
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", s3)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sink = ObjectStoreSink("s3://bucket/calls", options=s3_options(runner))
    try:
        if fault is None:
            assert await sink.probe() == "s3://bucket/calls: answers"
        else:
            with pytest.raises(SinkError, match=fault) as caught:
                await sink.probe()
            assert caught.value.refused is ("bucket" in fault and "s3" not in fault)
    finally:
        await runner.cleanup()


async def test_bucket_over_http_speaks_s3(file: Path) -> None:
    objects: dict[str, bytes] = {}
    fail = 1

    async def s3(request: web.Request) -> web.Response:
        nonlocal fail
        if request.method == "PUT":
            if fail:
                fail -= 1
                return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
            objects[request.path] = await request.read()
            return web.Response(headers={"ETag": '"1"'})
        return web.Response(body=objects[request.path], headers={"ETag": '"1"', "Last-Modified": DATE})

    DATE = "Fri, 02 Jan 2026 03:04:05 GMT"
    app = web.Application(client_max_size=10**7)
    app.router.add_route("*", "/{path:.*}", s3)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sink = ObjectStoreSink(
        "s3://bucket/calls",
        "{recording_id}.{suffix}",
        options={
            "endpoint": f"http://127.0.0.1:{runner.addresses[0][1]}",
            "access_key_id": "AKIA",
            "secret_access_key": "hunter2",
            "region": "eu-central-1",
            "allow_http": True,
        },
    )
    assert "hunter2" not in repr(sink) + str(vars(sink))
    with pytest.raises(SinkError) as caught:
        await sink.on_recording_complete(metadata(file))
    assert caught.value.retry, "credentials can be mended within the day"
    assert "\n" not in str(caught.value)
    await sink.on_recording_complete(metadata(file))
    await runner.cleanup()
    assert objects == {"/bucket/calls/rec-1.wav": file.read_bytes()}


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "ftp://h/x"},
        {"url": "bucket"},
        {"url": "file:///tmp/x", "key_template": "../x"},
        {"url": "file:///tmp/x", "verify": "hope"},
        {"url": "s3://bucket", "options": {"colour": "red"}},
        {"url": "s3://bucket", "options": {"endpoint": "http://10.0.0.9:9000"}},
        {"url": "s3://bucket", "options": {"allow_invalid_certificates": True}},
    ],
)
def test_unusable_store_is_refused(arguments: dict[str, Any]) -> None:
    """A store that cannot be used is refused."""
    with pytest.raises(BadArgument) as caught:
        ObjectStoreSink(**arguments)
    assert "\n" not in str(caught.value)


# -- vCon


async def test_vcon_holds_audio_and_parties(file: Path, tmp_path: Path) -> None:
    """A vCon in a folder holds the audio and the parties."""
    sink = VconSink(tmp_path / "out")
    for _ in range(2):
        await sink.on_recording_complete(metadata(file))
    path = tmp_path / "out/2026/01/02/rec-1.vcon.json"
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [path]
    vcon = json.loads(path.read_bytes())
    assert vcon["vcon"] == "0.4.0"
    assert vcon["created_at"] == "2026-01-02T03:05:05.000Z"
    assert vcon["parties"] == [{"tel": "+15551234"}, {"name": "alice"}]
    [dialog] = vcon["dialog"]
    body = dialog.pop("body")
    assert base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)) == file.read_bytes()
    assert dialog == {
        "type": "recording",
        "start": "2026-01-02T03:04:05.678Z",
        "duration": 59.3,
        "parties": [0, 1],
        "mediatype": "audio/x-wav",
        "filename": "a.wav",
        "encoding": "base64url",
    }
    [attachment] = vcon["attachments"]
    assert attachment["encoding"] == "json"
    assert attachment["body"] == metadata(file).to_dict()
    assert {"party", "dialog", "start", "purpose"} <= set(attachment)
    assert vcon["analysis"] == []
    made = uuid.UUID(vcon["uuid"])
    assert (made.version, made.variant) == (8, uuid.RFC_4122)
    assert made.int >> 80 == 1767323045678
    assert vcon_uuid("rec-2", 1767323045.678) != vcon["uuid"]


async def test_encrypted_files_are_no_audio(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vCon and an object said ``audio/x-wav`` of a file that only its key opens."""
    labelled = 'application/vnd.fastagi.encrypted; scheme=aes-256-gcm; content="audio/x-wav"'
    encrypted = metadata(file, encryption="aes-256-gcm")
    await VconSink(tmp_path / "out", key_template="x.json").on_recording_complete(encrypted)
    [dialog] = json.loads((tmp_path / "out/x.json").read_bytes())["dialog"]
    assert dialog["mediatype"] == labelled
    told: list[str | None] = []

    async def s3(request: web.Request) -> web.Response:
        told.append(request.headers.get("Content-Type"))
        return web.Response(headers={"ETag": '"1"'})

    app = web.Application(client_max_size=10**7)
    app.router.add_route("PUT", "/{path:.*}", s3)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sink = ObjectStoreSink("s3://bucket", "{recording_id}", options=s3_options(runner))
    for item in (encrypted, metadata(file)):
        with pytest.raises(SinkError):  # it is not read back here
            await sink.on_recording_complete(item)
    await runner.cleanup()
    assert told == [labelled, "audio/x-wav"]


def test_a_scheme_cannot_break_a_header() -> None:
    """A cipher of one's own may call itself anything."""
    assert media_type(metadata(encryption='x"; y\r\nz')) == (
        'application/vnd.fastagi.encrypted; scheme=x___y__z; content="audio/x-wav"'
    )


async def test_linked_vcon_carries_the_hash(file: Path, tmp_path: Path) -> None:
    sink = VconSink(
        str(tmp_path / "out"), audio_url="https://h/audio/{recording_id}/{file}", key_template="{file}.json"
    )
    await sink.on_recording_complete(metadata(file))
    [dialog] = json.loads((tmp_path / "out/a.wav.json").read_bytes())["dialog"]
    digest = base64.urlsafe_b64encode(hashlib.sha512(file.read_bytes()).digest()).rstrip(b"=").decode()
    assert dialog["url"] == "https://h/audio/rec-1/a.wav"
    assert dialog["content_hash"] == f"sha512-{digest}"
    assert not {"body", "encoding"} & set(dialog)


async def test_vcon_post_answers_like_webhook(file: Path) -> None:
    """A vCon is posted, and answers count as with a webhook."""
    got: list[tuple[str, str | None, Any]] = []

    async def take(request: web.Request) -> web.Response:
        got.append((request.content_type, request.headers.get("Idempotency-Key"), await request.json()))
        return web.Response(status=503 if len(got) == 1 else 202)

    app = web.Application(client_max_size=10**7)
    app.router.add_post("/v", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sink = VconSink(f"http://127.0.0.1:{runner.addresses[0][1]}/v")
    token = current_delivery.set(CurrentDelivery("dlv-1", 1, "rec-1"))
    with pytest.raises(SinkError) as caught:
        await sink.on_recording_complete(metadata(file))
    assert caught.value.retry
    await sink.on_recording_complete(metadata(file))
    current_delivery.reset(token)
    await sink.aclose()
    await runner.cleanup()
    assert got[0] == got[1]
    assert got[0][:2] == ("application/vcon", "dlv-1")


async def test_too_large_file_is_refused(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file too large for a vCon is refused for good."""
    monkeypatch.setattr("fastagi.delivery.sinks.vcon.INLINE_BYTES", 1000)
    with pytest.raises(SinkError, match="set audio_url") as caught:
        await VconSink(tmp_path).on_recording_complete(metadata(file))
    assert not caught.value.retry
    with pytest.raises(SinkError, match="No such file") as caught:
        await VconSink(tmp_path).on_recording_complete(metadata("/nowhere/a.wav"))
    assert caught.value.retry


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": "relative"},
        {"target": "/tmp", "audio_url": "http://h/x"},
        {"target": "/tmp", "audio_url": "https://h/{colour}"},
        {"target": "/tmp", "key_template": "../x"},
        {"target": "https://"},
    ],
)
def test_unusable_vcon_sink_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        VconSink(**arguments)


# -- command

SHOW = """
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "stdin": json.load(sys.stdin), "env": dict(os.environ)}), file=open(%r, "w"))
"""


async def test_command_runs_without_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command gets all metadata, and no shell interprets it."""
    monkeypatch.setenv("FASTAGI_STORE__URL", "postgresql://user:hunter2@h/db")
    out = tmp_path / "out.json"
    sink = CommandSink(
        [sys.executable, "-c", SHOW % str(out), "{file_path}", "id={recording_id}/{delivery_id}/{attempt}", "$(id)"],
        env={"MINE": "yes"},
    )
    nasty = metadata("/rec/a;b $(reboot).wav", caller="-rf; `reboot`\n\x00")
    token = current_delivery.set(CurrentDelivery("dlv-9", 2, "rec-1"))
    await sink.on_recording_complete(nasty)
    current_delivery.reset(token)
    got = json.loads(out.read_text())
    assert got["argv"] == ["/rec/a;b $(reboot).wav", "id=rec-1/dlv-9/2", "$(id)"]
    assert got["stdin"] == nasty.to_dict()
    env = got["env"]
    assert (env["MINE"], env["FASTAGI_CALLER"], env["FASTAGI_CALLED"]) == ("yes", "-rf; `reboot`  ", "alice")
    assert (env["FASTAGI_DELIVERY_ID"], env["FASTAGI_ATTEMPT"], env["FASTAGI_SESSION_ID"]) == ("dlv-9", "2", "pbx-1.2")
    assert "hunter2" not in str(env), "the server's own environment is not passed on"


@pytest.mark.parametrize(("status", "retry"), [(1, True), (65, False), (75, True), (127, True)])
async def test_exit_status_decides_the_retry(status: int, retry: bool) -> None:
    """The exit status says whether to try again."""
    sink = CommandSink([sys.executable, "-c", f"import sys; sys.stderr.write('no\\nroom'); sys.exit({status})"])
    with pytest.raises(SinkError) as caught:
        await sink.on_recording_complete(metadata())
    assert caught.value.retry is retry
    assert str(caught.value).endswith(f"exit status {status}: no room")


async def test_missing_or_killed_command_is_retried() -> None:
    """A command that is not there or is killed is tried again."""
    with pytest.raises(SinkError, match="No such file") as caught:
        await CommandSink(["/nowhere/program"]).on_recording_complete(metadata())
    assert caught.value.retry
    with pytest.raises(SinkError, match="ended by SIGKILL"):
        await CommandSink([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]).on_recording_complete(
            metadata()
        )


async def test_hung_command_dies_with_children(tmp_path: Path) -> None:
    """A command that hangs is killed with its children."""
    pid = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid}; wait"
    with pytest.raises(SinkError, match=r"within 1 s") as caught:
        await CommandSink(["/bin/sh", "-c", script], timeout_seconds=1.0).on_recording_complete(metadata())
    assert caught.value.retry
    child = int(pid.read_text())
    async with asyncio.timeout(10):
        while _lives(child):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_cancelled_command_is_killed() -> None:
    task = asyncio.create_task(CommandSink(["/bin/sleep", "300"]).on_recording_complete(metadata()))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_command_is_done_despite_children(tmp_path: Path) -> None:
    """A command that leaves something running is done when it ends."""
    pid = tmp_path / "pid"
    await asyncio.wait_for(
        CommandSink(["/bin/sh", "-c", f"sleep 300 & echo $! > {pid}"]).on_recording_complete(metadata()), 20
    )
    child = int(pid.read_text())
    assert _lives(child), "what it started on purpose is its own"
    os.kill(child, 9)


async def test_flooding_command_ends_well() -> None:
    """A command that floods its output and reads nothing ends well."""
    big = metadata(facts="x" * 2_000_000)
    flood = "import sys; sys.stderr.write('y' * 5_000_000)"
    await CommandSink([sys.executable, "-c", flood]).on_recording_complete(big)


@pytest.mark.parametrize(
    "arguments",
    [
        {"argv": "rm -rf /"},
        {"argv": []},
        {"argv": ["/bin/true", "{caller}"]},
        {"argv": ["/bin/true", "a\0b"]},
        {"argv": ["/bin/true"], "timeout_seconds": 0},
    ],
)
def test_unusable_command_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        CommandSink(**arguments)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("seconds", ["5", None, True, 0, -1.0, float("inf"), float("nan")])
def test_a_time_limit_is_a_number(seconds: Any) -> None:
    for make in (
        lambda: CommandSink(["/bin/true"], timeout_seconds=seconds),
        lambda: VconSink("/tmp", timeout_seconds=seconds),
        lambda: VconSink("https://h", timeout_seconds=seconds),
    ):
        with pytest.raises(BadArgument, match=r"timeout_seconds=.* must be a number of seconds, more than 0"):
            make()
