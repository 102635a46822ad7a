"""Real SIP calls with real RTP, placed and taken by Debian's ``sipp``: `SippCall` calls, `SippAgent` is called.

The scenarios are in ``sipp/``; audio goes out as a raw G.711 stream (sipp's ``rtp_stream``: its pcap player wants
root).
"""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Self

import soundfile

from fastagi.errors import FastAGIError
from fastagi.testing.owned import OwnedProcess
from fastagi.testing.ports import free_port, free_rtp_port
from fastagi.testing.sound import load

CODECS = {"ulaw": (0, "PCMU", "ULAW"), "alaw": (8, "PCMA", "ALAW")}
"""Codec's name in Asterisk -> RTP payload type, name in SDP, name in libsndfile."""


class SipError(FastAGIError):
    """A call did not follow its scenario; the text has sipp's reason."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Stay in the call for so long. Ends early when the other side hangs up."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Digits:
    """Press these keys, as SIP INFO, 150 ms apart."""

    digits: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Re-INVITE with this direction: ``sendonly`` or ``inactive`` holds, ``sendrecv`` takes the call back."""

    direction: str = "sendonly"


@dataclass(frozen=True, slots=True)
class Play:
    """Send this sound from now on, once or for ever."""

    audio: Path
    loop: bool = False


@dataclass(frozen=True, slots=True)
class Quiet:
    """Send no RTP from now on."""


@dataclass(frozen=True, slots=True)
class Refer:
    """Send the other side to this number (blind transfer by REFER)."""

    number: str


Step = Wait | Digits | Hold | Play | Quiet | Refer


class _Sipp:
    """Base of both ends: the scenario's files, the process, its log."""

    def __init__(self, *, host: str, codec: str, audio: Path | None, loop: bool, port: int | None) -> None:
        if codec not in CODECS:
            raise ValueError(f"codec={codec!r} is not known: use one of {', '.join(CODECS)}")
        self.host = host
        self.port = free_port() if port is None else port
        self.rtp_port = free_rtp_port()
        self._codec = codec
        self._audio = audio
        self._loop = loop
        self._folder: Path | None = None
        self._process: OwnedProcess | None = None
        self._names = itertools.count(1)

    async def _launch(self, scenario: str, arguments: Sequence[str]) -> None:
        if shutil.which("sipp") is None:
            raise SipError("sipp is needed: apt-get install sip-tester")
        folder = self._made_folder()
        (folder / "scenario.xml").write_text(scenario)
        command = [
            "sipp", "-sf", "scenario.xml", "-i", self.host, "-p", str(self.port),
            "-mi", self.host, "-mp", str(self.rtp_port), "-nostdin", "-aa",
            "-trace_logs", "-log_file", "log", "-trace_err", "-error_file", "errors", *arguments,
        ]  # fmt: skip
        self._process = OwnedProcess(command, output=folder / "screen", cwd=folder, doomed=[folder])

    def _made_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fastagi-sipp-"))
        return self._folder

    def _template(self, name: str, **values: object) -> str:
        text = (files("fastagi.testing") / "sipp" / f"{name}.xml").read_text()
        payload, encoding, _ = CODECS[self._codec]
        known = {"PAYLOAD": payload, "ENCODING": encoding, **values}
        return re.sub(r"@([A-Z]+)@", lambda m: str(known[m.group(1)]), text)

    def _playing(self, audio: Path | None, loop: bool) -> str:
        """Return the `exec` that streams a sound, whose raw audio is written beside the scenario."""
        if audio is None:
            return ""
        payload, _, subtype = CODECS[self._codec]
        name = f"audio{next(self._names)}.raw"
        soundfile.write(self._made_folder() / name, load(audio), 8000, format="RAW", subtype=subtype)
        return f'<exec rtp_stream="{name},{-1 if loop else 1},{payload}" />'

    def _read(self, name: str) -> str:
        try:
            return (self._made_folder() / name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    @property
    def calls_up(self) -> int:
        """Return the number of calls answered so far, with those that have ended."""
        return self._read("log").count("up ")

    async def answered(self, calls: int = 1, *, timeout: float = 20.0) -> None:
        """Wait until `calls` calls have been answered.

        :raises SipError: not answered in time, or sipp ended
        """
        deadline = time.monotonic() + timeout
        while self.calls_up < calls:
            if self._process is None or self._process.returncode is not None or time.monotonic() > deadline:
                raise SipError(f"the call was not answered: {self._reason()}")
            await asyncio.sleep(0.02)

    def _reason(self) -> str:
        """Return sipp's first complaint, with the message that came instead."""
        lines = [line.strip() for line in self._read("errors").splitlines() if line.strip()]
        return " / ".join([line for line in lines if "jumping to label" not in line][1:5]) or "no answer"

    async def kill(self) -> None:
        """Vanish: no BYE, no more RTP."""
        if self._process is not None:
            await self._process.end(signal.SIGKILL)

    async def close(self) -> None:
        """Kill sipp if it still runs, and remove its folder."""
        await self.kill()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, True)
            self._folder = None


class SippCall(_Sipp):
    """A call into Asterisk's context ``from-sipp``: ``async with SippCall(ast.sip_port, "100", audio=wav) as call``.

    :param asterisk_port: UDP port of its SIP transport
    :param number: what is dialled
    :param audio: sound file that the caller says; None sends no RTP at all
    :param loop: say it again and again, else no more RTP after its end
    :param seconds: how long the call lasts when there are no `steps`; then the caller hangs up
    :param steps: what happens in the call instead, in order; after the last one the caller hangs up
    :param calls: so many such calls, `rate` started per second
    """

    def __init__(
        self,
        asterisk_port: int,
        number: str,
        *,
        audio: Path | None = None,
        loop: bool = False,
        seconds: float = 5.0,
        steps: Sequence[Step] = (),
        codec: str = "ulaw",
        caller: str = "1001",
        calls: int = 1,
        rate: float = 10.0,
        host: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        super().__init__(host=host, codec=codec, audio=audio, loop=loop, port=port)
        for name, value in (("number", number), ("caller", caller)):
            if not re.fullmatch(r"[A-Za-z0-9*#+._-]{1,64}", value):
                raise ValueError(f"{name}={value!r} is not a SIP user that this can dial")
        self._target = f"{host}:{asterisk_port}"
        self._number = number
        self._caller = caller
        self._steps = list(steps) or [Wait(seconds)]
        self._calls = calls
        self._rate = rate
        self._labels = itertools.count(10)
        self._versions = itertools.count(2)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Place the call; returns before it is answered."""
        scenario = self._template(
            "uac",
            NUMBER=self._number,
            CALLER=self._caller,
            PLAY=self._playing(self._audio, self._loop),
            STEPS="\n".join(self._step(step) for step in self._steps),
        )
        arguments = [self._target, "-m", str(self._calls), "-r", str(self._rate), "-l", str(self._calls)]
        await self._launch(scenario, arguments)

    async def wait(self, timeout: float = 120.0) -> None:
        """Wait until every call is over.

        :raises SipError: a call did not go as planned; :raises TimeoutError: still up after `timeout` seconds
        """
        if self._process is None:
            raise SipError("the call was never placed")
        code = await self._process.wait(timeout)
        if code:
            raise SipError(f"the call to {self._number} failed: {self._reason()}")

    def _step(self, step: Step) -> str:
        match step:
            case Wait(seconds):
                return self._pause(seconds)
            case Digits(digits):
                sent = (self._template("info", CALLER=self._caller, DIGIT=digit) for digit in digits)
                return "".join(text + self._pause(0.15) for text in sent)
            case Hold(direction):
                return self._template("hold", CALLER=self._caller, DIRECTION=direction, VERSION=next(self._versions))
            case Play(audio, loop):
                # a stream that was paused stays so, whatever file it is given
                resume = '<exec rtp_stream="resume" />'
                return f"  <nop><action>{self._playing(audio, loop)}{resume}</action></nop>\n"
            case Quiet():
                return '  <nop><action><exec rtp_stream="pause" /></action></nop>\n'
            case Refer(number):
                return self._template("refer", CALLER=self._caller, NUMBER=number)

    def _pause(self, seconds: float) -> str:
        return self._template("wait", MS=max(1, round(seconds * 1000)), ELSE=next(self._labels))


class SippAgent(_Sipp):
    """Phone that answers every call: ``async with SippAgent(ast.agent_ports["agent1"], audio=wav)``; dial
    PJSIP/agent1.

    :param port: UDP port where Asterisk looks for it
    :param seconds: it hangs up after so long, unless the other side did before
    :param ring: seconds it rings
    """

    def __init__(
        self,
        port: int,
        *,
        audio: Path | None = None,
        loop: bool = False,
        seconds: float = 600.0,
        ring: float = 0.0,
        codec: str = "ulaw",
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(host=host, codec=codec, audio=audio, loop=loop, port=port)
        self._seconds = seconds
        self._ring = ring

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen; returns once the port is bound.

        :raises SipError: it cannot be
        """
        scenario = self._template(
            "uas",
            PLAY=self._playing(self._audio, self._loop),
            MS=round(self._seconds * 1000),
            RING=round(self._ring * 1000),
        )
        await self._launch(scenario, [])
        deadline = time.monotonic() + 20.0
        while not _bound(self.port):
            if self._process is None or self._process.returncode is not None or time.monotonic() > deadline:
                raise SipError(f"nobody listens on port {self.port}: {self._reason()}")
            await asyncio.sleep(0.02)


def _bound(port: int) -> bool:
    """Tell from the kernel's table whether some process has a UDP port: a probe would disturb the scenario."""
    rows = Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(int(row.split()[1].split(":")[1], 16) == port for row in rows)
