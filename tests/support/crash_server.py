"""A server that kills itself at a chosen point of its work: `python tests/support/crash_server.py SETTINGS`.

$LOST_AT says where: ``write:3`` right after the third journal write, ``start:before``, ``start:after``,
``stop:before``, ``stop:after`` around Asterisk's command, ``reserve:1`` after the name was taken, ``encrypt:1`` when a
part of the encrypted file is written, ``rename:1`` when it has its name, ``render:1`` when the finished file is in its
place, ``unremoved:1`` before Asterisk's files are removed, ``remove:1`` after. The program itself is not changed.
``sleep:make`` stops it, until it is sent SIGCONT, when it has looked at Asterisk's files and is about to make the
finished one, ``sleep:remove`` before it removes them.

$LOST_CIPHER is the secret of a cipher (`Cipher.to_secret`): every recording that is started is encrypted with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastagi import App
from fastagi.app import logs
from fastagi.audio import finalfile
from fastagi.cipher import Cipher, aes_cbc, aes_gcm, age, from_secret
from fastagi.recording.asterisk import control, external, raw_files
from fastagi.recording.ledger import journal
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


def fall_asleep() -> None:
    """Stop, as SIGSTOP does, before the next line: sent to the process, it may reach another thread first."""
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def then_asleep(function: Callable[..., Any]) -> Callable[..., Any]:
    def slept(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        fall_asleep()
        return value

    return slept


def asleep_before(function: Callable[..., Any]) -> Callable[..., Any]:
    def slept(*args: Any, **kwargs: Any) -> Any:
        fall_asleep()
        return function(*args, **kwargs)

    return slept


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


def begun(command: list[str], *, stdin: int, stdout: int, **how: Any) -> None:
    """A worker that goes on when its server has died."""
    subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL)
    while os.fstat(stdout).st_size == 0:
        time.sleep(0.001)


def encrypting(app: App, cipher: Cipher) -> None:
    """Have the route that starts recordings encrypt them."""

    async def start(call: Any) -> None:
        if await call.WholeCallRecorder.start(call.params["filename"], cipher=cipher):
            await call.set_variable("RECORDING_STATE", "RECORDING")

    app.route("record/start")(start)


def arm(point: str) -> None:
    what, _, when = point.partition(":")
    if what == "write":
        journal.Journal._write = after_awaiting(journal.Journal._write, int(when))  # type: ignore[method-assign]
    elif what in ("start", "stop"):
        command = getattr(control.AmiControl, what)
        setattr(control.AmiControl, what, before if when == "before" else after_awaiting(command, 1))
    elif what == "render":
        external.finish = after(external.finish, 1)
    elif what == "encrypt":
        aes_cbc.STEP = 4096
        aes_cbc.write_all = aes_gcm.write_all = after(aes_cbc.write_all, int(when))
        age.subprocess.run = after(begun, int(when))  # type: ignore[assignment]
    elif what == "rename":
        finalfile.sync_folder = after(finalfile.sync_folder, int(when))
    elif what == "sleep" and when == "remove":
        raw_files.remove = asleep_before(raw_files.remove)
    elif what == "sleep":
        passes = sys.modules["fastagi.audio.render"]  # the package has a function of that name
        passes._look = then_asleep(passes._look)  # type: ignore[attr-defined]
    elif what == "unremoved":
        raw_files.remove = before
    elif what in ("reserve", "remove"):
        setattr(raw_files, what, after(getattr(raw_files, what), 1))
    else:
        raise SystemExit(f"no such point: {point}")


if __name__ == "__main__":
    settings = load(Path(sys.argv[1]), {})
    logs.configure(settings.log)
    if os.environ.get("LOST_AT"):
        arm(os.environ["LOST_AT"])
    app = App(settings)
    if os.environ.get("LOST_CIPHER"):
        encrypting(app, from_secret(os.environ["LOST_CIPHER"].encode()))
    app.run()
