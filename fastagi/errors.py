"""Tree of all errors that fastagi raises.

    FastAGIError
    ├── Error                  the seed's Error: a call or a recorder is not in the state the request needs, or an
    │   │                      argument is wrong. The caller must mend it; trying the same again fails again.
    │   ├── BadArgument        one argument is wrong (says which, its value, and what is allowed)
    │   ├── CipherError        a key, IV or recipient is wrong, or a file cannot be decrypted
    │   └── CommandFailed      Asterisk answered an AGI command with 5xx (`code`, `text`)
    ├── Hangup                 the seed's Hangup: the call is over
    ├── ConfigError            a settings key or value is wrong (names key, value, and what is allowed); exit code 2
    ├── AsteriskError          Asterisk's side: try again once it is back
    │   ├── AsteriskDown       no AMI connection now
    │   ├── ActionTimeout      an AMI action was not answered in time
    │   └── ActionRefused      Asterisk answered an AMI action with an error (`message`)
    ├── AudioError             a file is not audio, cannot be repaired, or a codec refused it
    │   └── DiskFull           no room left where the finished file should go; the raw file is kept
    ├── StoreError             the ledger's database is locked, gone or older than this program
    │   ├── StoreDown          not reachable now; try again
    │   ├── StoreDamaged       its file is damaged, or is no ledger; restore the backup
    │   └── TakenOver          another server has that recording now
    │       └── HeldElsewhere  another server on the same Asterisk records that channel already
    ├── IllegalTransition      a bug: an event came in a phase that does not allow it
    └── SinkError              a sink could not take a recording (`retry`, `retry_after` in seconds, `refused`)

Nothing here is caught as ``BaseException``; asyncio.CancelledError always passes.
"""

from __future__ import annotations


class FastAGIError(Exception):
    """Root of the tree."""


class Error(FastAGIError):
    """The request does not fit the call's or the recorder's state, or an argument is wrong (seed: Error)."""


class BadArgument(Error):
    """One argument is wrong. The text names it, its value and what is allowed."""


class CommandFailed(Error):
    """Asterisk refused an AGI command.

    :param code: AGI status, 510 (unknown), 511 (dead channel) or 520 (usage)
    :param text: Asterisk's own words
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"Asterisk answered {code}: {text}" if text else f"Asterisk answered {code}")
        self.code = code
        self.text = text


class Hangup(FastAGIError):
    """The call is over (seed: Hangup)."""


class ConfigError(FastAGIError):
    """A settings key or value is wrong; the text names the key, the value and what is allowed."""


class AsteriskError(FastAGIError):
    """Asterisk did not do as asked; the call itself may be fine."""


class AsteriskDown(AsteriskError):
    """There is no AMI connection to that Asterisk now."""


class ActionTimeout(AsteriskError):
    """An AMI action was not answered within its time limit."""


class ActionRefused(AsteriskError):
    """Asterisk answered an AMI action with ``Response: Error``.

    :param message: Asterisk's ``Message`` header
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class AudioError(FastAGIError):
    """A file is not audio, is beyond repair, or cannot be encoded as asked."""


class DiskFull(AudioError):
    """There is no room for the finished file; the raw files are kept."""


class CipherError(Error):
    """A key, an IV or a recipient is wrong, or a file cannot be decrypted."""


class StoreError(FastAGIError):
    """The ledger's database cannot be used as it is."""


class StoreDown(StoreError):
    """The ledger's database is not reachable now; trying again may help."""


class StoreDamaged(StoreError):
    """The ledger's file is damaged, or is no ledger.

    :param shown: the ledger's address; :param fault: what the database says
    """

    REMEDY = "stop the server, keep a copy of the ledger, and put the last backup back (guide: upkeep.md, Restore)"

    def __init__(self, shown: str, fault: str) -> None:
        self.fault = f"{shown}: is damaged ({fault})"
        super().__init__(f"{self.fault}: {self.REMEDY}")


class TakenOver(StoreError):
    """Another server took the recording over while this one was silent. This server may no longer change it."""


class HeldElsewhere(TakenOver):
    """Another server on this ledger, connected to the same Asterisk, records that channel already."""


class IllegalTransition(FastAGIError):
    """An event came in a phase whose row of the state table does not list the event."""


class SinkError(FastAGIError):
    """A sink could not take a recording.

    :param retry: False when trying again cannot help (the delivery is dead at once)
    :param retry_after: seconds the receiver asked for, or None
    :param refused: the receiver refuses this sender or this address (HTTP 401, 403, 404), not the recording: three such
        recordings in a row put the sink on hold
    """

    def __init__(
        self, message: str, *, retry: bool = True, retry_after: float | None = None, refused: bool = False
    ) -> None:
        super().__init__(message)
        self.retry = retry
        self.retry_after = retry_after
        self.refused = refused
