"""CommandSink: runs an operator's program, without a shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from fastagi.delivery.sink import current_delivery, must_be_seconds, recording_id_of
from fastagi.delivery.sink_type import ConfiguredSink, SinkOptions, sink_type
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import BadArgument, SinkError

REFUSED = 65
"""Exit status EX_DATAERR of sysexits.h: this recording will never be taken. Any other failure is tried again."""

ERROR_BYTES = 2000
COMPLAINT_SECONDS = 1.0

PLACEHOLDERS = ("file_path", "recording_id", "delivery_id", "attempt", "format", "sha256")
"""Only values that no caller can choose: a caller's name that starts with a dash would be an option. The rest is in the
environment and on standard input.
"""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


class CommandOptions(SinkOptions):
    """Keys of a sink of type command."""

    argv: list[str] = Field(min_length=1, description="the program and its arguments, a list; there is no shell")
    timeout_seconds: float = Field(60.0, gt=0, le=86_400, description="after it the program is killed")
    env: dict[str, str] = Field({}, description="more environment variables")


@sink_type("command")
class CommandSink(ConfiguredSink[CommandOptions]):
    """Runs a program for each recording: exit status 0 is success, 65 a refusal for good, anything else "try again".

    The program gets the metadata as JSON on standard input. Its environment is the server's PATH, HOME, LANG, LC_ALL,
    TZ and TMPDIR, the variables of `env`, and FASTAGI_RECORDING_ID, FASTAGI_DELIVERY_ID, FASTAGI_ATTEMPT,
    FASTAGI_FILE_PATH, FASTAGI_SESSION_ID, FASTAGI_NAME, FASTAGI_FORMAT, FASTAGI_CALLER, FASTAGI_CALLED, FASTAGI_CAUSE.
    Their values are hostile: a script must quote them. The server's own environment may hold secrets and is not passed
    on.

    :param argv: the program and its arguments; `{file_path}` and the other `PLACEHOLDERS` are filled in
    :param timeout_seconds: after it the program and its children are killed, and the delivery is tried again
    :param env: more variables
    :raises BadArgument: argv or the time limit cannot be used
    """

    options = CommandOptions
    summary = (
        "Runs a program; metadata on standard input and in the environment, "
        f"{', '.join(f'`{{{name}}}`' for name in PLACEHOLDERS)} in the arguments. "
        f"Exit status {REFUSED} means: never again."
    )
    needs_file = True

    def __init__(
        self, argv: Sequence[str], *, timeout_seconds: float = 60.0, env: Mapping[str, str] | None = None
    ) -> None:
        if isinstance(argv, str) or not argv or not all(isinstance(a, str) and "\0" not in a for a in argv):
            raise BadArgument("argv must be a list: the program and its arguments (there is no shell)")
        for argument in argv:
            for name in _PLACEHOLDER.findall(argument):
                if name not in PLACEHOLDERS:
                    known = ", ".join(f"{{{p}}}" for p in PLACEHOLDERS)
                    raise BadArgument(
                        f"argv: {{{name}}} is not known: there are {known}; the rest is in the environment"
                    )
        must_be_seconds(timeout_seconds)
        self.argv = tuple(argv)
        self.timeout_seconds = timeout_seconds
        self.time_limit_seconds = timeout_seconds + 10.0
        self._env = dict(env or {})

    @property
    def identity(self) -> str:
        """Return a text that tells this sink from others of its class (see `fastagi.delivery.sink`)."""
        return "\0".join(self.argv)

    def __repr__(self) -> str:
        return f"CommandSink({Path(self.argv[0]).name!r})"

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        """Run the program.

        :raises SinkError: the program is not there, took too long, or failed
        """
        values = self._values(metadata)
        argv = [_PLACEHOLDER.sub(lambda m: values[m.group(1)], argument) for argument in self.argv]
        async with _complaints() as (stderr, complaints):
            try:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=stderr,
                    env=self._environment(metadata, values),
                    start_new_session=True,  # so that its children can be killed with it
                )
            except OSError as exc:
                raise SinkError(f"{argv[0]}: {exc.strerror}") from None
            finally:
                os.close(stderr)
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    await _write(process, metadata.to_json())
                    status = await process.wait()
                    # a child that it left running may hold the pipe open for ever
                    await asyncio.wait({complaints}, timeout=COMPLAINT_SECONDS)
            except TimeoutError:
                raise SinkError(f"{argv[0]}: did not end within {self.timeout_seconds:g} s") from None
            finally:
                if process.returncode is None:
                    _kill(process)
                    await asyncio.shield(process.wait())
            said = complaints.result() if complaints.done() else ""
        if status != 0:
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            raise SinkError(f"{argv[0]}: {how}" + (f": {said}" if said else ""), retry=status != REFUSED)

    async def probe(self) -> str:
        """Check that the program is there, without running it.

        :raises SinkError: it is not
        """
        found = await asyncio.to_thread(shutil.which, self.argv[0])
        if found is None:
            raise SinkError(f"{self.argv[0]}: there is no such program, or it may not be run")
        return f"{found} is there"

    def remedy(self, retry_hours: float) -> str:
        return "name the program by its full path, and make it executable for the server's user"

    def _values(self, metadata: RecordingMetadata) -> dict[str, str]:
        delivery = current_delivery.get()
        return {
            "file_path": metadata.file_path,
            "recording_id": recording_id_of(metadata),
            "delivery_id": delivery.id if delivery else "",
            "attempt": str(delivery.attempt if delivery else 1),
            "format": metadata.format,
            "sha256": str(metadata.extra.get("sha256") or ""),
        }

    def _environment(self, metadata: RecordingMetadata, values: Mapping[str, str]) -> dict[str, str]:
        told = {
            **{name: values[name] for name in ("recording_id", "delivery_id", "attempt", "file_path", "format")},
            "session_id": metadata.session_id,
            "name": metadata.name,
            **{name: str(metadata.extra.get(name) or "") for name in ("caller", "called", "cause")},
        }
        return {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            **self._env,
            **{f"FASTAGI_{name.upper()}": _CONTROL.sub(" ", value) for name, value in told.items()},
        }


async def _write(process: asyncio.subprocess.Process, body: bytes) -> None:
    """Write the standard input; a program that does not read it is no error."""
    assert process.stdin is not None
    try:
        process.stdin.write(body)
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass
    process.stdin.close()


@contextlib.asynccontextmanager
async def _complaints() -> AsyncIterator[tuple[int, asyncio.Task[str]]]:
    """Yield a pipe for standard error, which the caller closes, and a task that returns the end of its output."""
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", 0)
    )
    task = asyncio.create_task(_tail(reader))
    try:
        yield write_end, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        transport.close()


async def _tail(reader: asyncio.StreamReader) -> str:
    kept = b""
    while part := await reader.read(4096):  # read on, or the program would block in its write
        kept = (kept + part)[-ERROR_BYTES:]
    return " ".join(kept.decode("utf-8", "replace").split())[-200:]


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the program and its children. It is not reaped yet, so its number still belongs to it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
