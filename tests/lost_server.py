"""A server that kills itself at a chosen point of its work: `python tests/lost_server.py SETTINGS`.

$LOST_AT says where: ``write:3`` right after the third journal write, ``start:before``, ``start:after``,
``stop:before``, ``stop:after`` around Asterisk's command, ``reserve:1`` after the name was taken, ``render:1`` when the
finished file is in its place, ``remove:1`` when Asterisk's files are removed. The program itself is not changed for it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastagi import App
from fastagi.app import logs
from fastagi.recording.asterisk import control
from fastagi.recording.ledger import journal
from fastagi.recording.spool import files, foreign
from fastagi.settings import load


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The same function; the process dies when it returns for the so-manieth time."""
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        value = function(*args, **kwargs)
        calls += 1
        if calls == number:
            die()
        return value

    return counted


def after_awaiting(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    calls = 0

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        value = await function(*args, **kwargs)
        calls += 1
        if calls == number:
            die()
        return value

    return counted


def before(*args: Any, **kwargs: Any) -> Any:
    die()


def arm(point: str) -> None:
    what, _, when = point.partition(":")
    if what == "write":
        journal.Journal._write = after_awaiting(journal.Journal._write, int(when))  # type: ignore[method-assign]
    elif what in ("start", "stop"):
        command = getattr(control.AmiControl, what)
        setattr(control.AmiControl, what, before if when == "before" else after_awaiting(command, 1))
    elif what == "render":
        foreign.finish = after(foreign.finish, 1)
    elif what in ("reserve", "remove"):
        setattr(files, what, after(getattr(files, what), 1))
    else:
        raise SystemExit(f"no such point: {point}")


if __name__ == "__main__":
    settings = load(Path(sys.argv[1]), {})
    logs.configure(settings.log)
    if os.environ.get("LOST_AT"):
        arm(os.environ["LOST_AT"])
    App(settings).run()
