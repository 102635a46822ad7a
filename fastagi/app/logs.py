"""The form of log lines, and the values that are kept out of them. Set up once per process, by `fastagi.cli`.

One line per event on standard error: JSON for machines, or text for people (`[log] json = false`). The standard
library's logging (alembic, aiohttp, panoramisk, asyncio) goes through the same steps. Tracebacks show no local
variables, which hold secrets and callers' numbers. The call that a line belongs to comes from context variables that
`App.handle` sets.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from fastagi.settings import LogSettings

HIDDEN = "[hidden]"

_SECRET_NAME = re.compile(
    r"(^|_)(secret|password|passwd|passphrase|token|authorization|cookie|credentials?|iv|"
    r"(private|master|api|secret|access|signing|encryption)_?key)$|^key$",
    re.IGNORECASE,
)
"""Keys whose value is hidden. `key_file`, `call_key` and `token_name` do not match."""

_SECRET_TEXT = re.compile(
    r"(?i)\b(secret|password|passwd|passphrase|token|authorization|signing_secret|api_?key|access_?key)"
    r"([\"']?\s*[:=]\s*[\"']?)((?:bearer|basic)\s+)?[^\s\"',;&)}\]]+"
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")

DEEPEST = 4
"""Levels of nested values that are searched for secrets; no log line has deeper ones."""

QUIET = ("aiohttp", "alembic", "asyncio", "asyncpg", "panoramisk", "pgqueuer", "PgQueuer", "sqlalchemy")
"""Libraries whose information is noise to an operator: only their warnings are logged, at level debug too. Each SQL
statement is information to sqlalchemy, and a call has dozens.
"""


def configure(settings: LogSettings, stream: TextIO | None = None, *, quiet: bool = False) -> None:
    """Send every log line of this process to `stream`.

    :param stream: standard error when None
    :param quiet: only warnings and worse, for commands whose output is their own
    """
    out = sys.stderr if stream is None else stream
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    if quiet:
        level = max(level, logging.WARNING)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_steps(settings.json_lines, out)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: LineLogger(out, str(names[0]) if names else ""),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, Bridge):
            root.removeHandler(handler)
    root.addHandler(Bridge())
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


def in_use() -> bool:
    """Return whether this process's log lines are made here: a program of its own may have its own logging."""
    return any(isinstance(handler, Bridge) for handler in logging.getLogger().handlers)


def _colours(out: TextIO) -> bool:
    try:
        return out.isatty()
    except ValueError:  # closed
        return False


def _utf8(out: TextIO) -> bool:
    return (getattr(out, "encoding", None) or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")


def _steps(json_lines: bool, out: TextIO) -> list[Callable[..., Any]]:
    common: list[Callable[..., Any]] = [
        structlog.processors.add_log_level,
        _add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # text, without local variables
        redact,
    ]
    if json_lines:
        return [*common, _in_order, structlog.processors.JSONRenderer(ensure_ascii=not _utf8(out), default=str)]
    return [
        *common,
        _printable,
        structlog.dev.ConsoleRenderer(
            colors=_colours(out), exception_formatter=structlog.dev.plain_traceback, pad_event_to=28, sort_keys=False
        ),
    ]


class LineLogger:
    """Writes lines. A log that cannot be written stops no recording: errors of writing are dropped."""

    def __init__(self, out: TextIO, name: str = "") -> None:
        self._out = out
        self.name = name

    def msg(self, message: str) -> None:
        try:
            try:
                self._out.write(message + "\n")
            except UnicodeEncodeError:  # half a character from a caller, or a terminal without such letters
                code = self._out.encoding
                self._out.write(message.encode(code, "backslashreplace").decode(code) + "\n")
            self._out.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = warn = error = critical = exception = fatal = failure = log = msg


class Bridge(logging.Handler):
    """Turns records of the standard library's logging into lines of this log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # a record's arguments do not fit its format string
            text = str(record.msg)
        fields: dict[str, Any] = {}
        if record.exc_info and record.levelno < logging.ERROR and record.exc_info[1] is not None:
            # a database that is away is logged every second: its error text is enough, without the library's traceback
            fields["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        elif record.exc_info:
            fields["exc_info"] = record.exc_info
        structlog.get_logger(record.name).log(record.levelno, text, **fields)


def redact(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide secrets by the name of their key, and in texts that name one. A structlog processor."""
    for name, value in event.items():
        event[name] = _clean(name, value, 0)
    return event


def _clean(name: str, value: Any, depth: int) -> Any:
    if value and _SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(value, str):
        return hide_in_text(value)
    if depth < DEEPEST:
        if isinstance(value, Mapping):
            return {key: _clean(str(key), item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_clean("", item, depth + 1) for item in value]
    return value


def hide_in_text(text: str) -> str:
    """Hide ``token=…``, ``Authorization: Bearer …`` and passwords in URLs."""
    if "=" in text or ":" in text:
        text = _SECRET_TEXT.sub(lambda m: f"{m[1]}{m[2]}{HIDDEN}", text)
        text = _URL_PASSWORD.sub(rf"\g<1>{HIDDEN}@", text)
    return text


def _add_logger_name(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    name = getattr(logger, "name", "")
    if name:
        event.setdefault("logger", name)
    return event


_FIRST = ("timestamp", "level", "event", "recording_id", "channel", "uniqueid", "asterisk", "linkedid")


def _in_order(logger: Any, method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Order the keys: time, level, event and call stand in the same place on every line."""
    ordered = {name: event.pop(name) for name in _FIRST if name in event}
    last = {name: event.pop(name) for name in ("logger", "exception") if name in event}
    return {**ordered, **event, **last}


def _printable(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace control characters: an escape sequence in a caller's name must not write to an operator's terminal."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return event
