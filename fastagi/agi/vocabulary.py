"""AGI commands of Asterisk 16 to 22 (``agi show commands``), and which of them work on a dead channel.

The second column is Asterisk's own ``Dead`` column. Asterisk replies 511 to the others once the channel has hung up.
"""

from __future__ import annotations

from typing import Final

COMMANDS: Final[dict[str, bool]] = {
    "ANSWER": False,
    "ASYNCAGI BREAK": True,
    "CHANNEL STATUS": False,
    "CONTROL STREAM FILE": False,
    "DATABASE DEL": True,
    "DATABASE DELTREE": True,
    "DATABASE GET": True,
    "DATABASE PUT": True,
    "EXEC": True,
    "GET DATA": False,
    "GET FULL VARIABLE": True,
    "GET OPTION": False,
    "GET VARIABLE": True,
    "GOSUB": False,
    "HANGUP": False,
    "NOOP": True,
    "RECEIVE CHAR": False,
    "RECEIVE TEXT": False,
    "RECORD FILE": False,
    "SAY ALPHA": False,
    "SAY DATE": False,
    "SAY DATETIME": False,
    "SAY DIGITS": False,
    "SAY NUMBER": False,
    "SAY PHONETIC": False,
    "SAY TIME": False,
    "SEND IMAGE": False,
    "SEND TEXT": False,
    "SET AUTOHANGUP": False,
    "SET CALLERID": False,
    "SET CONTEXT": False,
    "SET EXTENSION": False,
    "SET MUSIC": False,
    "SET PRIORITY": False,
    "SET VARIABLE": True,
    "SPEECH ACTIVATE GRAMMAR": False,
    "SPEECH CREATE": False,
    "SPEECH DEACTIVATE GRAMMAR": False,
    "SPEECH DESTROY": True,
    "SPEECH LOAD GRAMMAR": False,
    "SPEECH RECOGNIZE": False,
    "SPEECH SET": False,
    "SPEECH UNLOAD GRAMMAR": True,
    "STREAM FILE": False,
    "TDD MODE": False,
    "VERBOSE": True,
    "WAIT FOR DIGIT": False,
}


def command_name(line: str) -> str:
    """Return the name of a line's command in capitals, without arguments; for EXEC with the application.

    An unknown command gives ``?``: its words may hold a secret.
    """
    words = line.split(None, 3)
    for count in (3, 2, 1):
        name = " ".join(words[:count]).upper()
        if name in COMMANDS:
            if name == "EXEC" and len(words) > 1 and words[1].isalnum():
                return f"EXEC {words[1]}"
            return name
    return "?"


_SILENT_COMMANDS: Final = frozenset(
    (
        *("GET VARIABLE", "GET FULL VARIABLE", "SET VARIABLE", "SET CALLERID", "SET CONTEXT", "SET EXTENSION"),
        *("SET PRIORITY", "SET AUTOHANGUP", "CHANNEL STATUS", "NOOP", "VERBOSE", "WAIT FOR DIGIT", "SEND TEXT"),
        *("DATABASE DEL", "DATABASE DELTREE", "DATABASE GET", "DATABASE PUT"),
    )
)
_SILENT_APPLICATIONS: Final = frozenset(("NOOP", "SET", "MSET", "VERBOSE", "LOG", "WAIT", "WAITEXTEN", "MIXMONITOR"))


def sounds_after(command: str, before: bool) -> bool:
    """Tell whether the tones of ``Playtones`` sound after this command was sent.

    A command that plays something ends the tones; only commands known to play nothing keep them.

    :param command: name as `command_name` returns it
    :param before: the tones sounded before the command
    """
    verb, _, application = command.partition(" ")
    if verb == "EXEC":
        application = application.upper()
        return application == "PLAYTONES" or (before and application in _SILENT_APPLICATIONS)
    return before and command in _SILENT_COMMANDS
