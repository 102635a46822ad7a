"""The AGI commands of Asterisk 16 to 22 (``agi show commands``), and which of them a dead channel still takes.

The second column is Asterisk's own ``Dead`` column: the others are answered with 511 once the channel has hung up.
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
    """The command that a line asks for, in capitals, of EXEC with its application (``EXEC Playback``); no argument.

    A command that Asterisk does not have gives ``?``: its words may be anything.
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
    """Do the tones of ``Playtones`` sound once this command was sent?

    Whatever plays something ends them, so only a command that is known to play nothing leaves them alone.

    :param command: as `command_name` gives it
    :param before: they sounded before it
    """
    verb, _, application = command.partition(" ")
    if verb == "EXEC":
        application = application.upper()
        return application == "PLAYTONES" or (before and application in _SILENT_APPLICATIONS)
    return before and command in _SILENT_COMMANDS
