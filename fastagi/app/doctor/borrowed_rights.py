"""Examines with the rights of the serving user, in a process of its own that has dropped root's for good."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

from fastagi.app.doctor import examine
from fastagi.app.doctor.finding import Finding, Reporter
from fastagi.app.doctor.serving_user import ServingUser
from fastagi.errors import Error
from fastagi.settings import Settings


def examine_as(user: ServingUser, settings: Settings, *, send_ping: bool = False) -> Iterator[Finding]:
    """Yield the findings of a child process, as they come. The settings were read before; the child checks its right
    to.

    :raises Error: the child ended before its work
    """
    yield Reporter("user").ok("rights", f"examined with the rights of {user.name}, by {user.source}")
    sys.stdout.flush()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _child(user, settings, send_ping, write)
    os.close(write)
    ended = False
    try:
        with os.fdopen(read, encoding="utf-8") as lines:
            for line in lines:
                yield Finding.from_line(line)
        ended = True
    finally:
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if status:
        raise Error(f"the examination with the rights of {user.name} broke off: may {user.name} run {sys.executable}?")


def _child(user: ServingUser, settings: Settings, send_ping: bool, write: int) -> None:
    """Examine in the child process. Never returns."""
    code = 1
    try:
        user.become()
        with os.fdopen(write, "w", encoding="utf-8") as out:
            closed = _closed()
            if closed:
                out.write(_no_program(user, closed).to_line() + "\n")
            else:
                asyncio.run(_tell(settings, send_ping, out.write, out.flush))
        code = 0
    except KeyboardInterrupt:
        pass
    except Exception as exc:
        print(f"fastagi: {type(exc).__name__}: {exc}", file=sys.stderr)
    finally:
        os._exit(code)


def _closed() -> str:
    """Return a file of the program that this user may not read; empty when there is none."""
    parts = (sys.executable, os.__file__, __file__)
    return next((path for path in parts if not os.access(path, os.R_OK, effective_ids=True)), "")


def _no_program(user: ServingUser, path: str) -> Finding:
    return Reporter("user").fail(
        "program",
        f"{user.name} may not read {path}: as {user.name} the server does not start, and nothing more can be examined",
        "install it where everybody may read it: python3 -m venv /opt/fastagi && /opt/fastagi/bin/pip install …",
    )


async def _tell(
    settings: Settings, send_ping: bool, write: Callable[[str], object], flush: Callable[[], object]
) -> None:
    async for finding in examine(settings, send_ping=send_ping):
        write(finding.to_line() + "\n")
        flush()
