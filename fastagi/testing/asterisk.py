"""Private real Asterisk: started in a folder, controlled, killed, restarted, ended with the process that owns it.

`packages` finds the program, `configuration` writes its files. An Asterisk may be started in one event loop and used
from another: nothing here is bound to a loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fastagi.errors import ActionRefused, AsteriskError
from fastagi.testing import configuration
from fastagi.testing.ami_session import AmiSession
from fastagi.testing.owned import OwnedProcess
from fastagi.testing.packages import Installation, find_asterisk
from fastagi.testing.ports import free_port

BOOT_SECONDS = 90.0
"""Longest wait for a start in seconds: 1 to 5 s are usual; a loaded machine with two cores may need ten times that."""

AGENTS = ("agent1", "agent2", "agent3")

_numbers = itertools.count(900_001)


@dataclass(frozen=True, slots=True)
class Originated:
    """Channels of an Originate. Their uniqueids are chosen here, and so known before the call is up.

    :param uniqueid: of the channel dialled (of a Local channel: the ``;1`` half, which runs context/extension)
    :param other_uniqueid: of a Local channel's ``;2`` half, which runs the dialplan of the dialled extension
    :param channel: name of the channel dialled, "" when the answer was not waited for
    """

    uniqueid: str
    other_uniqueid: str
    channel: str = ""


class AsteriskServer:
    """``async with AsteriskServer(22, dialplan="[s]\\nexten => ...") as ast: await ast.originate("Local/s@s/n")``.

    :param version: major version, 22 or 16 (or the machine's own)
    :param dialplan: extensions.conf text, or a `Path` that is #included unchanged, or a list of both; it can use
        `${FASTAGI}`
    :param extra_files: name in etc -> text or `Path`; ``custom/features.conf`` is added to the shipped features.conf,
        and so for every shipped file; any other name is written, or replaces the shipped one
    :param noload: modules (without ``.so``) to leave out beyond the usual
    :param agi_port: port of the FastAGI server that `${FASTAGI}` names; None picks a free one
    :param system_name: goes in front of every uniqueid
    :param spool: where recordings with relative names go; None for one inside the folder
    :param folder: where to live; None for a temporary one that is removed at the end, unless `keep`
    """

    ami_host = "127.0.0.1"
    ami_user = "fastagi"

    def __init__(
        self,
        version: int = 22,
        *,
        dialplan: str | Path | Sequence[str | Path] = "",
        extra_files: Mapping[str, str | Path] | None = None,
        noload: Sequence[str] = (),
        agi_port: int | None = None,
        system_name: str = "",
        spool: Path | None = None,
        folder: Path | None = None,
        keep: bool = False,
    ) -> None:
        self.major = version
        self.system_name = system_name
        self.ami_port = free_port()
        self.ami_secret = secrets.token_urlsafe(18)
        self.sip_port = free_port()
        self.sipp_port = free_port()
        self.agi_port = free_port() if agi_port is None else agi_port
        self.agent_ports = {name: free_port() for name in AGENTS}
        self._dialplan = [dialplan] if isinstance(dialplan, str | Path) else list(dialplan)
        self._extra_files = dict(extra_files or {})
        self._noload = tuple(noload)
        self._given_spool = spool.absolute() if spool is not None else None
        self._given_folder = folder
        self._keep = keep or folder is not None
        self._folder: Path | None = folder.absolute() if folder is not None else None
        self._run: Path | None = None
        self._installation: Installation | None = None
        self._process: OwnedProcess | None = None

    # -- where things are

    @property
    def folder(self) -> Path:
        """Folder of this Asterisk.

        :raises AsteriskError: it was never started
        """
        if self._folder is None:
            raise AsteriskError("this Asterisk was never started")
        return self._folder

    @property
    def spool(self) -> Path:
        """Folder of MixMonitor's relative names."""
        return self._given_spool or self.folder / "spool" / "monitor"

    @property
    def sounds(self) -> Path:
        """Folder for a test's prompts: ``sounds/hello.wav`` is ``Playback(hello)``. English ones are in ``en``."""
        return self.folder / "data" / "sounds"

    @property
    def log(self) -> Path:
        """File with all log output: notices, warnings, errors, verbose 3."""
        return self.folder / "log" / "full"

    @property
    def version(self) -> str:
        """Version as Asterisk tells it, such as ``22.10.1``."""
        if self._installation is None:
            raise AsteriskError("this Asterisk was never started")
        return self._installation.version

    @property
    def pid(self) -> int | None:
        """Process id; None when the process does not run."""
        return self._process.pid if self.running and self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    # -- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Start and wait until Asterisk is fully booted. Does nothing when it runs.

        :raises AsteriskError: no such Asterisk, or no start in 90 s; the text has the last lines of its log
        """
        if self.running:
            return
        if self._installation is None:
            self._installation = await asyncio.to_thread(find_asterisk, self.major)
        conf = await asyncio.to_thread(self._prepare)
        try:
            self._launch(conf)
            await self._booted()
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """Stop gracefully: calls are hung up, files closed. The folder stays. Idempotent."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """Kill by SIGKILL: nothing is closed or flushed. The folder stays."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Stop and start, in the same folder and on the same ports."""
        await self.stop()
        await self.start()

    async def close(self) -> None:
        """Stop and remove the folder, unless `keep` is set."""
        try:
            await self.stop()
        finally:
            for folder in {self._run, None if self._keep else self._folder} - {None}:
                assert folder is not None
                await asyncio.to_thread(shutil.rmtree, folder, True)

    # -- control

    async def cli(self, command: str, *, timeout: float = 30.0) -> str:
        """Return the output of ``asterisk -rx COMMAND``.

        :raises AsteriskError: Asterisk does not run or does not answer
        """
        assert self._installation is not None
        conf = self.folder / "etc" / "asterisk.conf"
        process = await asyncio.create_subprocess_exec(
            *self._installation.command, "-C", str(conf), "-rx", command,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(timeout):
                output, _ = await process.communicate()
        except TimeoutError:
            raise AsteriskError(f"no answer to {command!r} within {timeout:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode(errors="replace")
        if process.returncode:
            raise AsteriskError(f"{command!r}: {text.strip() or 'the control socket did not answer'}")
        return text

    def ami(self, *, events: str = "on", timeout: float = 20.0) -> AmiSession:
        """Return a manager connection, for ``async with``."""
        return AmiSession(self.ami_host, self.ami_port, self.ami_user, self.ami_secret, events=events, timeout=timeout)

    async def originate(
        self,
        channel: str,
        *,
        context: str | None = None,
        exten: str = "s",
        application: str | None = None,
        data: str = "",
        variables: Mapping[str, str] | None = None,
        caller_id: str = "",
        timeout: float = 30.0,
        wait: bool = True,
    ) -> Originated:
        """Call `channel` and, once it answers, send it to context/exten or to an application (default: ``Wait(600)``).

        :param variables: channel variables, ``__NAME`` to have them inherited
        :param timeout: seconds it may ring
        :param wait: return when it was answered; False returns as soon as Asterisk took the order
        :raises ActionRefused: not answered, or Asterisk does not take the order
        """
        uniqueid, other = (f"{self._prefix()}{int(time.time())}.{next(_numbers)}" for _ in range(2))
        headers = {"Channel": channel, "Async": "true", "Timeout": str(int(timeout * 1000)), "ChannelId": uniqueid}
        if channel.startswith("Local/"):
            headers["OtherChannelId"] = other
        if context is not None:
            headers |= {"Context": context, "Exten": exten, "Priority": "1"}
        else:
            headers |= {"Application": application or "Wait", "Data": data if application else "600"}
        if caller_id:
            headers["CallerID"] = caller_id
        if variables:
            headers["Variable"] = "\n".join(f"{k}={v}" for k, v in variables.items())
        async with self.ami(timeout=timeout + 10) as ami:
            answer = await ami.action("Originate", headers)
            if answer["Response"] != "Success":
                raise ActionRefused(answer.get("Message", "Originate refused"))
            if not wait:
                return Originated(uniqueid, other)
            done = await ami.wait_event("OriginateResponse", lambda e: e.get("ActionID") == answer["ActionID"])
            if done["Response"] != "Success":
                raise ActionRefused(f"{channel} was not answered (reason {done.get('Reason')})")
            return Originated(uniqueid, other, done.get("Channel", ""))

    def tail(self, lines: int = 40) -> str:
        """Return the last lines of the log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def complaints(self) -> list[str]:
        """Return the WARNING and ERROR lines of the log, without those of 16's loader about deprecated modules."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            return [
                x for x in lines if ("WARNING[" in x or "ERROR[" in x) and "has been loaded but was deprecated" not in x
            ]
        return []

    # -- inside

    def _prefix(self) -> str:
        return f"{self.system_name}-" if self.system_name else ""

    def _prepare(self) -> Path:
        assert self._installation is not None
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fastagi-asterisk-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._run is None:
            # a folder of its own: the control socket's whole path must fit into 107 bytes, wherever `folder` is
            self._run = Path(tempfile.mkdtemp(prefix="fastagi-run-", dir="/tmp"))
        plan = configuration.Plan(
            folder=self._folder,
            run=self._run,
            installation=self._installation,
            ami_port=self.ami_port,
            ami_user=self.ami_user,
            ami_secret=self.ami_secret,
            agi_port=self.agi_port,
            sip_port=self.sip_port,
            sipp_port=self.sipp_port,
            system_name=self.system_name,
            spool=self._given_spool,
            noload=self._noload,
            agents=self.agent_ports,
            dialplan=self._dialplan,
            extra_files=self._extra_files,
        )
        (self._run / "asterisk.ctl").unlink(missing_ok=True)  # a killed one leaves it
        return configuration.write(plan)

    def _launch(self, conf: Path) -> None:
        assert self._installation is not None
        assert self._folder is not None
        assert self._run is not None
        self._process = OwnedProcess(
            [*self._installation.command, "-f", "-C", str(conf)],
            output=self._folder / "log" / "console",
            cwd=self._folder,
            doomed=[self._run] if self._keep else [self._run, self._folder],
        )

    async def _booted(self) -> None:
        """Wait until the manager interface takes a login and sends FullyBooted, the last step of Asterisk's start."""
        deadline = time.monotonic() + BOOT_SECONDS
        while self.running and time.monotonic() < deadline:
            with contextlib.suppress(OSError, TimeoutError):
                async with self.ami(timeout=10.0) as ami:
                    await ami.wait_event("FullyBooted", timeout=max(1.0, deadline - time.monotonic()))
                    return
            await asyncio.sleep(0.05)
        words = self.tail(5) or (self.folder / "log" / "console").read_text(errors="replace")[-500:]
        ended = f"ended with {self._process.returncode}" if self._process and not self.running else "did not boot"
        raise AsteriskError(f"Asterisk {self.version} {ended}: {words}")

    async def _end(self, by: signal.Signals) -> None:
        if self._process is not None:
            await self._process.end(by)
            self._process = None
