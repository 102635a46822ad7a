"""Log lines: one JSON object each, or for people; no secret, no local variable, no escape sequence."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from fastagi.app import logs
from fastagi.settings import LogSettings
from fastagi.store.queries import calls
from fastagi.store.sqlite import SqliteStore


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def _lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def _configured(level: str = "info", *, json_lines: bool = True, quiet: bool = False) -> io.StringIO:
    out = io.StringIO()
    logs.configure(LogSettings(level=level, json=json_lines), out, quiet=quiet)
    return out


def test_json_line_begins_with_the_call() -> None:
    out = _configured()
    with structlog.contextvars.bound_contextvars(channel="PJSIP/a-1", uniqueid="1.2"):
        structlog.get_logger("fastagi.x").info("recording_started", file="/a", recording_id="rec-1")
    (line,) = _lines(out)
    assert list(line)[:5] == ["timestamp", "level", "event", "recording_id", "channel"]
    assert line["uniqueid"] == "1.2"
    assert line["logger"] == "fastagi.x"
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "name",
    [
        "secret",
        "password",
        "token",
        "signing_secret",
        "key",
        "iv",
        "authorization",
        "Authorization",
        "http_token",
        "api_key",
    ],
)
def test_secret_is_hidden_by_its_name(name: str) -> None:
    out = _configured()
    structlog.get_logger().info("x", **{name: "hunter2", "deep": {"options": [{name: b"hunter2"}]}})
    assert "hunter2" not in out.getvalue()
    assert _lines(out)[0][name] == logs.HIDDEN


def test_harmless_names_are_shown() -> None:
    out = _configured()
    structlog.get_logger().info("x", key_file="/k", call_key="a/1", tokens=3, monkey="m", drive="d")
    line = _lines(out)[0]
    assert (line["key_file"], line["call_key"], line["tokens"], line["monkey"], line["drive"]) == (
        "/k", "a/1", 3, "m", "d",
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "login failed: Secret: hunter2",
        "GET /x?token=hunter2&a=1",
        "{'Authorization': 'Bearer hunter2'}",
        "Authorization: Basic hunter2",
        "postgresql://fastagi:hunter2@db/x is down",
    ],
)
def test_secret_is_hidden_inside_a_text(text: str) -> None:
    out = _configured()
    structlog.get_logger().info(text, error=text)
    logging.getLogger("lib").error("%s", text)
    assert "hunter2" not in out.getvalue()
    assert out.getvalue().count(logs.HIDDEN) == 3


def _raise_with_local() -> None:
    hidden_local = "hunter2-local"
    raise ValueError(f"broken {len(hidden_local)}")


@pytest.mark.parametrize("json_lines", [True, False])
def test_traceback_shows_no_locals(json_lines: bool) -> None:
    out = _configured(json_lines=json_lines)
    try:
        _raise_with_local()
    except ValueError:
        structlog.get_logger().exception("finishing_broke")
    text = out.getvalue()
    assert "ValueError: broken 13" in text
    assert "_raise_with_local" in text
    assert "hunter2" not in text


def test_standard_library_goes_the_same_way() -> None:
    out = _configured()
    logging.getLogger("aiohttp.server").error("bad %s", "request")
    logging.getLogger("alembic.runtime.migration").info("Context impl SQLiteImpl.")
    logs.Bridge().emit(logging.LogRecord("x", logging.WARNING, __file__, 1, "does not %d fit", ("no",), None))
    lines = _lines(out)
    assert [(line["logger"], line["event"], line["level"]) for line in lines] == [
        ("aiohttp.server", "bad request", "error"),
        ("x", "does not %d fit", "warning"),
    ]


def test_level_decides_and_commands_are_quiet() -> None:
    out = _configured("warning")
    structlog.get_logger().info("not this")
    structlog.get_logger().warning("this")
    assert [line["event"] for line in _lines(out)] == ["this"]
    out = _configured("debug", quiet=True)
    structlog.get_logger().info("not this")
    assert out.getvalue() == ""
    out = _configured("debug")
    logging.getLogger("theirs").debug("now also this")
    structlog.get_logger("x").debug("and this")
    assert [line["event"] for line in _lines(out)] == ["now also this", "and this"]


async def test_debug_level_shows_no_sql(tmp_path: Path) -> None:
    """Level debug shows this server's lines, not buried in SQL."""
    out = _configured("debug")
    await _one_write(tmp_path / "quiet.db")
    logging.getLogger("asyncio").debug("Using selector: EpollSelector")
    logging.getLogger("aiohttp.access").info("GET /healthz")
    structlog.get_logger("fastagi.x").debug("delivered")
    assert [line["event"] for line in _lines(out) if line.get("logger", "").partition(".")[0] != "fastagi"] == []
    assert "delivered" in [line["event"] for line in _lines(out)]


async def test_sql_is_logged_on_request(tmp_path: Path) -> None:
    """Setting the level of sqlalchemy's logger shows the SQL."""
    out = _configured()
    engine = logging.getLogger("sqlalchemy.engine")
    engine.setLevel("INFO")
    try:
        await _one_write(tmp_path / "loud.db")
    finally:
        engine.setLevel(logging.NOTSET)
    assert any("INSERT" in line["event"] for line in _lines(out))


async def _one_write(path: Path) -> None:
    store = SqliteStore(path, node="one")
    await store.start()
    await store.run(calls.answered, calls.AnsweredCall("pbx", "1.1"))
    await store.stop()


def test_console_line_escapes_control_characters() -> None:
    """A line for people cannot write to the terminal."""
    out = _configured(json_lines=False)
    structlog.get_logger().warning("odd", caller="\x1b[31mred\r\nevil", channel="Local/a")
    logging.getLogger("lib").warning("caller \x1b[31m said\r\n2026-01-01 [info] forged")
    text = out.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert text.count("\n") == 2, "no line is forged"
    assert "Local/a" in text


def test_unwritable_log_raises_nothing() -> None:
    """A log that cannot be written raises nothing."""
    out = _configured()
    out.close()
    structlog.get_logger().info("into the void")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_letters_that_the_stream_lacks(encoding: str) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    logs.configure(LogSettings(json=True), out)
    structlog.get_logger().info("odd", caller="名 é 😀", half="\udc80")
    line = json.loads(raw.getvalue().decode(encoding))
    assert (line["caller"], line["half"]) == ("名 é 😀", "\udc80")


def test_configured_twice_writes_once() -> None:
    _configured()
    out = _configured()
    logging.getLogger("x").error("once")
    assert len(_lines(out)) == 1


async def test_sessions_do_not_share_their_call() -> None:
    out = _configured()

    async def session(n: int) -> None:
        structlog.contextvars.bind_contextvars(uniqueid=f"{n}.1")
        await asyncio.sleep(0)
        structlog.get_logger().info("mine", n=n)

    await asyncio.gather(session(1), session(2))
    assert [(line["n"], line["uniqueid"]) for line in _lines(out)] == [(1, "1.1"), (2, "2.1")]


def test_library_warning_has_no_traceback() -> None:
    """A library's warning has the words of its error and no traceback."""
    out = _configured()
    try:
        raise OSError(111, "Connection refused")
    except OSError:
        logging.getLogger("asyncpg.pool").warning("trying again", exc_info=True)
        logging.getLogger("asyncpg.pool").error("gave up", exc_info=True)
    warning, error = _lines(out)
    assert warning["error"] == "ConnectionRefusedError: [Errno 111] Connection refused"
    assert "exception" not in warning
    assert "Traceback" in error["exception"]
