"""pyst2's `asterisk.agi.AGI` over a FastAGI session, so that pyst2 scripts run unchanged.

pyst2 uses three files: here stdout sends a command over the session, stdin gives its reply, stderr is silent. pyst2's
constructor does not run: it sets a signal handler, which only the main thread may do, reads the header block, and
copies the dialogue to stderr. The commands, their replies and their exceptions are pyst2's own.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from asterisk.agi import (
    AGI,
    AGIAppError,
    AGIHangup,
    AGIResultHangup,
    AGISIGHUPHangup,
    AGISIGPIPEHangup,
    AGIUnknownError,
)

from fastagi.agi.channel import Channel
from fastagi.errors import Hangup

if TYPE_CHECKING:
    from fastagi.agi.bridge import Bridge


class SignalledHangup(AGISIGHUPHangup, Hangup):  # type: ignore[misc]
    """The HANGUP line has come. As it is a `Hangup`, too, a handler that lets it pass ends normally."""


class ClosedHangup(AGISIGPIPEHangup, Hangup):  # type: ignore[misc]
    """The session is over: nothing can be sent."""


class ResultHangup(AGIResultHangup, Hangup):  # type: ignore[misc]
    """Asterisk replied to a command as it does when the channel is gone."""


class _Replies:
    """pyst2's stdin: lines of received replies."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque()

    def readline(self) -> str:
        """Return the next line with its line feed, '' when there is none."""
        return self.lines.popleft() + "\n" if self.lines else ""


class _Commands:
    """pyst2's stdout: each whole line is a command, sent when flushed."""

    def __init__(self, agi: SessionAGI) -> None:
        self._agi = agi
        self._text = ""

    def write(self, text: str) -> int:
        self._text += text
        return len(text)

    def flush(self) -> None:
        while "\n" in self._text:
            line, _, self._text = self._text.partition("\n")
            self._agi.send_command(line)


class _Silence:
    """pyst2's stderr, discarded: pyst2 would write every command and value there, with secrets."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


class SessionAGI(AGI):  # type: ignore[misc]
    """`AGI` of one session. Use it in the handler's thread, like its channel."""

    def __init__(self, channel: Channel, bridge: Bridge) -> None:
        # super().__init__() is not called: see the module's docstring.
        self._channel = channel
        self._bridge = bridge
        self.stdin = _Replies()
        self.stdout = _Commands(self)
        self.stderr = _Silence()
        self.env = dict(channel.env)

    @property
    def _got_sighup(self) -> bool:
        """True once the HANGUP line has come, which replaces pyst2's SIGHUP."""
        return self._channel.hung_up

    def test_hangup(self) -> None:
        """Check the call.

        :raises AGIHangup: the call was hung up
        """
        if self._channel.closed:
            raise ClosedHangup("the AGI session is over")
        if self._channel.hung_up:
            raise SignalledHangup("Asterisk says that the call was hung up")

    def send_command(self, command: str, *args: Any) -> None:
        """Send a command; its reply waits for `get_result`.

        :raises BadArgument: the line holds CR, LF or NUL, or is too long
        :raises AGIHangup: the session is over
        """
        line = " ".join([command.strip(), *map(str, args)]).strip()
        try:
            reply = self._bridge.wait(self._channel.raw(line))
        except Hangup as exc:
            raise ClosedHangup(str(exc)) from None
        self.stdin.lines.extend(reply.raw.split("\n"))

    def execute(self, command: str, *args: Any) -> Any:
        """Send a command and return its parsed reply, as pyst2 does."""
        self.test_hangup()
        self.send_command(command, *args)
        return self.get_result()

    def get_result(self, stdin: object = None) -> Any:
        """Parse the received reply as pyst2 does. Where a hangup and a failure look the same, Asterisk is asked.

        :param stdin: ignored, as in pyst2
        """
        try:
            return super().get_result()
        except AGIHangup as exc:
            self._hang_up(exc)
        except AGIAppError as exc:
            if not self._is_alive():
                self._hang_up(exc)
            raise
        except AGIUnknownError as exc:
            if exc.args[:1] == (511,):
                self._hang_up(exc)
            raise
        finally:
            self.stdin.lines.clear()  # the rest of this reply must not be read as the next one

    def _is_alive(self) -> bool:
        try:
            return self._bridge.wait(self._channel.is_alive())
        except Hangup:
            return False

    @staticmethod
    def _hang_up(exc: Exception) -> NoReturn:
        raise ResultHangup(*exc.args) from None
