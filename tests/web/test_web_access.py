"""Who gets in, and what hostile requests get: one JSON line, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from support.web_harness import TOKENS, WebScene, web_scene

ROLES = ("viewer", "operator", "admin")


@pytest.fixture
async def scene(tmp_path: Path) -> Any:
    async with web_scene(tmp_path, up=False) as scene:
        yield scene


async def test_missing_tokens_name_the_setting(tmp_path: Path) -> None:
    """Without tokens in the settings the API says which setting to add."""
    async with web_scene(tmp_path, up=False, http={"tokens": []}) as scene:
        status, body, response = await scene.request("GET", "/api/v1/recordings", token="x" * 40)
        assert status == 401
        assert "[[http.tokens]]" in body["error"]
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert (await scene.get("/healthz"))[0] == 200, "a probe needs none"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Basic {TOKENS['admin']}", "Bearer viewer-0123456789abcde", "Bearer " + "é" * 40,
     f"Bearer {TOKENS['admin']}x"],
)  # fmt: skip
async def test_a_wrong_token_opens_nothing(scene: WebScene, header: str) -> None:
    headers = {"Authorization": header} if header else {}
    for path in ("/api/v1/recordings", "/api/openapi.json", "/api/v1/nothing", "/api/"):
        status, body, response = await scene.request("GET", path, headers=headers)
        assert (status, set(body)) == (401, {"error"}), path
        assert "WWW-Authenticate" in response.headers


async def test_roles_follow_the_route_table(scene: WebScene) -> None:
    """Every route is requested with every role: a new one cannot be forgotten."""
    for route in scene.parts.http.api.routes:
        path = route.url.replace("{id}", "rec-none")
        if path.endswith("/events"):
            path += "?after=x"  # stops behind the door
        for role in ROLES:
            status, _, _ = await scene.request(route.method, path, role=role)
            allowed = ROLES.index(role) + 1 >= route.role
            assert (status != 403) == allowed, (route.method, path, role, status)
            assert status != 401


async def test_changes_need_more_than_viewer(scene: WebScene) -> None:
    for route in scene.parts.http.api.routes:
        assert (route.role.word == "viewer") == (route.method == "GET"), route


async def test_refused_tokens_are_logged_safely(scene: WebScene) -> None:
    """Refused tokens are logged without the token, and at a limited rate."""
    with capture_logs() as logs:
        for _ in range(40):
            await scene.request("GET", "/api/v1/calls", token="stolen-0123456789abcdef")
    found = [entry for entry in logs if entry["event"] == "http_token_refused"]
    assert len(found) == 20
    assert "stolen" not in json.dumps(logs, default=str)


async def test_answers_forbid_content_sniffing(scene: WebScene) -> None:
    for path in ("/healthz", "/metrics", "/api/v1/recordings", "/api/v1/nothing", "/nothing"):
        _, _, response = await scene.request("GET", path, role="viewer")
        headers = response.headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Server"] == "fastagi"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/api/v1/recordings?colour=blue", "colour"),
        ("/api/v1/recordings?limit=0", "1 to 1000"),
        ("/api/v1/recordings?limit=1001", "1 to 1000"),
        ("/api/v1/recordings?limit=1e3", "whole number"),
        ("/api/v1/recordings?limit=" + "9" * 200, "1 to 1000"),
        ("/api/v1/recordings?limit=5&limit=6", "twice"),
        ("/api/v1/recordings?state=SLEEPING", "RECORDING"),
        ("/api/v1/recordings?since=yesterday", "2026-01-31T12:00:00Z"),
        ("/api/v1/recordings?since=9999999999999999", "unix seconds"),
        ("/api/v1/recordings?cursor=../../etc/passwd", "no id"),
        ("/api/v1/recordings?search=" + "x" * 301, "too long"),
        ("/api/v1/recordings?search=a%00b", "not printable"),
        ("/api/v1/recordings?search=a%0d%0ab", "not printable"),
        ("/api/v1/recordings?deleted=maybe", "yes or no"),
        ("/api/v1/deliveries?status=lost", "waiting"),
        ("/api/v1/calls?cursor=x", "whole number"),
        ("/api/v1/events?after=x", "whole number"),
        ("/api/v1/recordings/rec-1?x=1", "none"),
    ],
)
async def test_wrong_parameter_names_allowed_values(scene: WebScene, path: str, word: str) -> None:
    """A wrong parameter is one line that says what is allowed."""
    status, body = await scene.get(path, role="viewer")
    assert status == 400, body
    assert word in body["error"]
    assert "\n" not in body["error"]


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"seconds": NaN}', "application/json", 400),
        (b'{"seconds": "ten"}', "application/json", 400),
        (b'{"seconds": true}', "application/json", 400),
        (b'{"minutes": 1}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b"seconds=3", "application/x-www-form-urlencoded", 415),
        (b"{" + b" " * (1 << 17) + b"}", "application/json", 413),
    ],
)
async def test_wrong_body_is_one_line(scene: WebScene, data: bytes, kind: str, status: int) -> None:
    """A wrong body is refused in one line."""
    found, body, _ = await scene.request(
        "POST", "/api/v1/recordings/rec-1/pause", role="operator", data=data, headers={"Content-Type": kind}
    )
    assert (found, set(body)) == (status, {"error"})


async def test_a_packed_body_is_not_unpacked(scene: WebScene) -> None:
    bomb = gzip.compress(b'{"seconds": 1' + b" " * (1 << 25) + b"}")
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    for data in (bomb, gzip.compress(b'{"seconds": 1}')):
        status, body, _ = await scene.request(
            "POST", "/api/v1/recordings/rec-1/pause", role="operator", data=data, headers=headers
        )
        assert (status, "not JSON" in body["error"]) == (400, True)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/recordings/..%2f..%2fetc%2fpasswd",
        "/api/v1/recordings/%2e%2e/audio",
        "/api/v1/recordings/rec-1%00/audio",
        "/api/v1/recordings/" + "a" * 41,
        "/api/v1/recordings/REC-1",
        "/api/v1/recordings//audio",
    ],
)
async def test_invalid_id_reaches_no_file(scene: WebScene, path: str) -> None:
    from yarl import URL

    async with scene.client.get(
        URL(scene.url(path), encoded=True), headers={"Authorization": f"Bearer {TOKENS['admin']}"}
    ) as response:
        assert response.status == 404
        assert set(json.loads(await response.read())) == {"error"}


async def test_wrong_method_names_the_allowed(scene: WebScene) -> None:
    """A method that is not there names those that are."""
    status, body, response = await scene.request("PUT", "/api/v1/recordings", role="admin")
    assert (status, response.headers["Allow"]) == (405, "GET, POST")
    assert "GET, POST" in body["error"]
    status, _, response = await scene.request("POST", "/metrics")
    assert (status, response.headers["Allow"]) == (405, "GET, HEAD")


async def _raw(scene: WebScene, data: bytes, seconds: float = 10) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
    try:
        writer.write(data)
        async with asyncio.timeout(seconds):
            return await reader.read()
    finally:
        writer.close()


async def test_endless_headers_are_refused(scene: WebScene) -> None:
    """Headers without end, and data that is no HTTP, are refused."""
    for data in (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    ):
        answer = await _raw(scene, data)
        assert re.match(rb"HTTP/1\.[01] 4\d\d ", answer), answer[:80]
        assert b"\r\nServer: fastagi\r\n" in answer, "it named Python and aiohttp with their versions"
        assert b"aiohttp" not in answer
    assert (await scene.get("/healthz"))[0] == 200


async def test_malformed_requests_are_logged_safely(scene: WebScene, caplog: pytest.LogCaptureFixture) -> None:
    """Malformed requests are logged without their content, and at a limited rate."""
    with capture_logs() as logs:
        for _ in range(30):
            await _raw(scene, b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer stolen-01234\x01\r\n\r\n")
    found = [entry for entry in logs if entry["event"] == "http_malformed"]
    assert len(found) == 20
    assert found[0]["peer"] == "127.0.0.1"
    assert "stolen" not in json.dumps(logs, default=str) + caplog.text
    assert "Traceback" not in caplog.text


async def test_unexpected_error_is_plain_500(scene: WebScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is 500 without its details."""

    async def broken(*args: object, **more: object) -> None:
        raise ValueError("secret innards")

    monkeypatch.setattr(scene.parts.store, "search", broken)
    with capture_logs() as logs:
        status, body = await scene.get("/api/v1/recordings", role="viewer")
    assert status == 500
    assert "innards" not in body["error"]
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["http_failed"]


async def test_openapi_matches_the_routes(scene: WebScene) -> None:
    """Openapi is the table and the table answers."""
    status, body = await scene.get("/api/openapi.json", role="viewer")
    assert (status, body["openapi"]) == (200, "3.1.0")
    told = {(m.upper(), path) for path, methods in body["paths"].items() for m in methods}
    assert told == {(r.method, r.url) for r in scene.parts.http.api.routes}
    assert {
        ("GET", "/api/v1/recordings"), ("POST", "/api/v1/recordings"), ("GET", "/api/v1/recordings/{id}"),
        ("DELETE", "/api/v1/recordings/{id}"), ("GET", "/api/v1/recordings/{id}/audio"),
        ("GET", "/api/v1/recordings/{id}/peaks"), ("POST", "/api/v1/recordings/{id}/stop"),
        ("POST", "/api/v1/recordings/{id}/pause"), ("POST", "/api/v1/recordings/{id}/resume"),
        ("GET", "/api/v1/deliveries"), ("POST", "/api/v1/deliveries/{id}/retry"), ("GET", "/api/v1/calls"),
        ("GET", "/api/v1/events"), ("GET", "/api/openapi.json"),
    } <= told  # fmt: skip
    names = [o["operationId"] for methods in body["paths"].values() for o in methods.values()]
    assert len(names) == len(set(names))
    start = body["paths"]["/api/v1/recordings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert start["required"] == ["channel"]
    assert "flac" in start["properties"]["file_format"]["enum"]
    needed = {
        (method, path, p["name"])
        for path, methods in body["paths"].items()
        for method, operation in methods.items()
        for p in operation.get("parameters", [])
        if p["in"] == "query" and p.get("required")
    }
    one = "/api/v1/recordings/{id}"
    assert needed == {("delete", one, "reason"), *(("post", one + end, "reason") for end in ("/hold", "/release"))}
    for methods in body["paths"].values():
        for operation in methods.values():
            assert {"401", "403"} <= set(operation["responses"])
