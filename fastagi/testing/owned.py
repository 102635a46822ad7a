"""Process that ends with its owner, however the owner ends, and removes its temporary folders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_GUARD = """\
exec 3<&0 0</dev/null
( read -r word <&3 || { kill -KILL $$; rm -rf "$1" "$2" || { sleep 1; rm -rf "$1" "$2"; }; } ) 2>/dev/null &
shift 2
exec "$@" 3<&-
"""
"""The owner holds the other end of fd 3: a word on it means "it has ended, do nothing", its end without a word means
that the
owner died, by SIGKILL too. (PR_SET_PDEATHSIG would fire when the *thread* that started the process ends.)"""

STOP_SECONDS = 15.0


class OwnedProcess:
    """Process that starts when the object is made; call `end` to end it.

    :param output: file to which standard output and error are appended
    :param doomed: up to two folders to remove if the owner dies
    """

    def __init__(self, command: Sequence[str], *, output: Path, cwd: Path, doomed: Sequence[Path] = ()) -> None:
        folders = [*map(str, doomed), "", ""][:2]
        with open(output, "ab") as stream:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "guard", *folders, *command],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                start_new_session=True,  # Ctrl-C in the owner's terminal is the owner's to handle
                env={**os.environ, "LC_ALL": "C", "TERM": "dumb"},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Return code of the process; None while it runs, negative for a signal."""
        return self._process.poll()

    async def wait(self, seconds: float) -> int:
        """Wait for the end and return the return code.

        :raises TimeoutError: it still runs after `seconds`
        """
        deadline = time.monotonic() + seconds
        while (code := self._process.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._process.args!r} still runs after {seconds:.0f} s")
            await asyncio.sleep(0.02)
        self._release()
        return code

    async def end(self, by: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """Send the signal and wait, then SIGKILL. Return the return code, at once for a process that has ended."""
        if self._process.poll() is None:
            self._process.send_signal(by)
        try:
            return await self.wait(seconds)
        except TimeoutError:
            self._process.kill()
            return await self.wait(seconds)
        except asyncio.CancelledError:
            self._process.kill()
            raise

    def _release(self) -> None:
        """Release the guard: it must not kill the next process with this id."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(b"ended\n")
            self._process.stdin.flush()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
