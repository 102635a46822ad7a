"""What Asterisk is told: the option string, the variable of the id, which refusals mean that the channel is gone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fastagi.domain.recording import Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.errors import ActionRefused, AsteriskDown, Error, Hangup
from fastagi.recording.asterisk.control import AgiControl, gone, id_variable, mixmonitor_options
from fastagi.recording.asterisk.raw_files import next_number, raw_segment, recording_id_of, size

ID = "rec-01jzzzzzzzzzzzzzzzzzzzzzzz"


def piece(spool: str = "/spool", **options: Any) -> Segment:
    return raw_segment(Path(spool), ID, options.pop("number", 0), RecordingSpec(**options), "PJSIP/1-01", "1.1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtmf_elim": False}, ""),
        ({}, f"r(/spool/{ID}-rx.wav)t(/spool/{ID}-tx.wav)S"),
        ({"dtmf_elim": False, "recording_mode": "separate"}, f"r(/spool/{ID}-rx.wav)t(/spool/{ID}-tx.wav)S"),
        ({"dtmf_elim": False, "beep_seconds": 15, "beep_start": True, "beep_stop": True}, "B(15)pP"),
        ({"rate": 16000, "file_format": "flac"}, f"r(/spool/{ID}-rx.wav16)t(/spool/{ID}-tx.wav16)S"),
    ],
)
def test_the_option_string(options: dict[str, Any], words: str) -> None:
    made = piece(**options)
    assert mixmonitor_options(made, RecordingSpec(**options)) == f"i({id_variable(made)}){words}"


def test_every_piece_has_an_id_variable_of_its_own() -> None:
    names = {id_variable(piece(number=n)) for n in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"[A-Z0-9_]{1,60}", name) for name in names)


@pytest.mark.parametrize("options", [{}, {"engine": "monitor"}, {"dtmf_elim": False}, {"rate": 16000}])
def test_a_raw_file_that_is_to_be_encrypted_says_so(options: dict[str, Any]) -> None:
    for number in (0, 2, 9000):
        made = piece(number=number, encryption="age", **options)
        assert all(f"{ID}-secret" in Path(p).name for p in made.paths)
        assert all(recording_id_of(Path(p)) == ID for p in made.paths)
        assert next_number([made]) == number + 1
        assert re.fullmatch(r"[A-Z0-9_]{1,60}", id_variable(made))
        assert all("secret" not in path for path in piece(number=number, **options).paths)


def test_nothing_a_caller_says_is_in_a_raw_files_name() -> None:
    made = piece()
    assert [Path(p).name for p in made.paths] == [f"{ID}.wav", f"{ID}-rx.wav", f"{ID}-tx.wav"]
    assert all(recording_id_of(Path(p)) == ID for p in made.paths)


@pytest.mark.parametrize(
    ("exc", "is_gone"),
    [
        (Hangup("x"), True),
        (ActionRefused("No such channel"), True),
        (ActionRefused("Could not stop Mixmonitor"), True),
        (ActionRefused("Permission denied"), False),
        (AsteriskDown("no such channel"), False),
        (Error("no such channel"), False),
    ],
)
def test_which_refusal_means_that_it_is_gone(exc: Exception, is_gone: bool) -> None:
    assert gone(exc) is is_gone


class Session:
    """An AGI session that keeps what it is told."""

    closed = False

    def __init__(self, variables: dict[str, str] | None = None) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.variables = variables or {}

    async def exec(self, application: str, *args: Any) -> str:
        self.said.append((application, *args))
        return "0"

    async def get_variable(self, name: str) -> str | None:
        return self.variables.get(name)


async def test_a_stop_never_goes_out_without_an_id() -> None:
    """It would stop any one of the channel's MixMonitors: somebody else's recording."""
    made, spec = piece(), RecordingSpec()
    session = Session()
    with pytest.raises(ActionRefused, match="not on this channel") as info:
        await AgiControl(session).stop(made, spec)
    assert gone(info.value)
    assert session.said == []
    session = Session({id_variable(made): "0xabc"})
    await AgiControl(session).stop(made, spec)
    assert session.said == [("StopMixMonitor", "0xabc")]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert [size(str(tmp_path / name)) for name in ("file", "link", "none", "")] == [4, -1, -1, -1]
