"""Results of commands where a plain str, int or None would lose information."""

from __future__ import annotations

from dataclasses import dataclass

from fastagi.agi.events import Reply
from fastagi.errors import Error


class Digits(str):
    """Digits that the caller pressed, '' for none: a str with the other facts of Asterisk's reply.

    :ivar timed_out: True when the time ran out before the caller was done (GET DATA), or ended the recording
    :ivar endpos: sample at which playing or recording ended, None where Asterisk does not say
    :ivar reason: Asterisk's word for the end: ``timeout``, ``dtmf``, or empty
    """

    _reply: Reply

    def __new__(cls, digits: str, reply: Reply) -> Digits:
        self = super().__new__(cls, digits)
        self._reply = reply
        return self

    @property
    def endpos(self) -> int | None:
        return self._reply.endpos

    @property
    def reason(self) -> str:
        return self._reply.data or ""

    @property
    def timed_out(self) -> bool:
        return self._reply.data == "timeout"

    @classmethod
    def pressed(cls, reply: Reply) -> Digits:
        """Make `Digits` from a reply whose result is one digit as a character code, 0 for none."""
        return cls("" if reply.result == "0" else character(reply.result), reply)


@dataclass(frozen=True, slots=True)
class Heard:
    """Guess of the speech engine.

    :param score: confidence, 0 to 1000; :param text: the words; :param grammar: the grammar that matched
    """

    score: int
    text: str
    grammar: str


@dataclass(frozen=True, slots=True)
class Recognition:
    """Result of SPEECH RECOGNIZE.

    :param reason: ``speech``, ``digit``, ``timeout``, or empty when the engine could not listen
    :param digit: the digit pressed, '' for none
    :param endpos: sample at which the prompt ended
    :param results: the engine's guesses, best first
    """

    reason: str
    digit: str = ""
    endpos: int | None = None
    results: tuple[Heard, ...] = ()

    @classmethod
    def of(cls, reply: Reply) -> Recognition:
        fields = reply.fields
        count = fields.get("results", "0")
        return cls(
            reason=reply.data or "",
            digit=fields.get("digit", ""),
            endpos=reply.endpos,
            results=tuple(
                Heard(
                    score=int(fields.get(f"score{i}", "0") or 0),
                    text=fields.get(f"text{i}", ""),
                    grammar=fields.get(f"grammar{i}", ""),
                )
                for i in range(min(int(count) if count.isdigit() else 0, 100))
            ),
        )


def number(result: str) -> int:
    """Return a numeric result.

    :raises Error: Asterisk sent something else
    """
    try:
        return int(result)
    except ValueError:
        raise Error(f"Asterisk answered result={result[:40]!r} where a number belongs") from None


def character(result: str) -> str:
    """Return the character of a result that is a character code, '' for 0."""
    code = number(result)
    return chr(code) if 0 < code < 0x110000 else ""
