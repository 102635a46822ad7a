"""Which tests begin first, and which are run a second time when they fail (`docs/decisions/0012`)."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]

FOLDERS = ("asterisk", "acceptance", "integration", "web", "unit")
"""Folders in the order in which their tests begin: those that mostly wait first, those that compute fill the end."""

LONGEST = (
    "asterisk/test_lost_killed.py",
    "asterisk/test_lost_faults.py",
    "asterisk/test_whole_moves.py",
    "asterisk/test_whole_standstill.py",
    "asterisk/test_lost_slow.py",
    "asterisk/test_lost_encrypted.py",
    "asterisk/test_recorder_crowd.py",
    "asterisk/test_recorder_without_ami.py",
    "integration/test_delivery_killed.py",
    "integration/test_lost_overflow.py",
    "integration/test_stop_while_starting.py",
    "acceptance/test_acceptance_demo.py",
    "acceptance/test_examples.py",
)
"""Files that one worker is long busy with: they begin before all others, so that no worker ends alone."""

SECOND_RUN = {
    "asterisk/test_lost_*.py": "kills a server at a chosen point, beside calls that go on in real time",
    "asterisk/test_recorder_crowd.py": "hundreds of calls at once need more than two busy cores have",
    "asterisk/test_recorder_hangups.py": "looks at a window of a quarter of a second around a hangup",
    "asterisk/test_testing_sip.py": "SIP retransmits by timers of half a second",
    "asterisk/test_whole_*.py": "compares the length of recorded audio with the machine's clock",
    "acceptance/test_acceptance_demo.py": "has three minutes for everything, the start of an Asterisk included",
    "acceptance/test_acceptance_serve.py": "signals a process while it starts",
    "integration/test_delivery_killed.py": "measures how fast ten thousand deliveries are",
    "integration/test_lost_*.py": "waits for a server to be taken for dead: both need their share of the machine",
    "integration/test_stop_while_starting.py": "signals a process at many moments of its start",
    "web/test_web_console.py": "Chromium takes seconds to start beside three other workers",
}
"""Files, as patterns below `tests`, whose tests may fail by what else the machine does, each with its reason."""


def rank(path: Path) -> tuple[int, int]:
    """Return where a test file stands in the order of a whole run."""
    try:
        name = path.relative_to(TESTS).as_posix()
    except ValueError:  # the examples
        return len(LONGEST), len(FOLDERS)
    first = LONGEST.index(name) if name in LONGEST else len(LONGEST)
    folder = name.partition("/")[0]
    return first, FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)


def may_run_twice(path: Path) -> bool:
    """Return whether the tests of that file are run again when they fail."""
    return path.is_relative_to(TESTS) and any(path.relative_to(TESTS).match(pattern) for pattern in SECOND_RUN)
