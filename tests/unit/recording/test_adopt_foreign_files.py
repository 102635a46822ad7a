"""Somebody else's recording, told by its file: where it is, what it becomes, when it is whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import soundfile

from fastagi.ami.actions import MixMonitorRow
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.recording.asterisk import external
from fastagi.recording.asterisk.external import Found
from fastagi.recording.monitoring.watch import LOOK_SECONDS
from fastagi.settings import RecordingSettings


def row(stem: str, received: str = "", sent: str = "") -> MixMonitorRow:
    return MixMonitorRow("0x1", stem, received, sent)


def locate(*args: Any) -> Found:
    return external.locate(args[0], args[1] if len(args) > 1 else "", "SIP/a", "1.1", *args[2:])


def test_the_suffix_is_the_variables_or_the_newest_files(tmp_path: Path) -> None:
    stem = str(tmp_path / "a.b")
    assert locate(row(stem)).piece.mixed == stem + ".wav"  # nobody can see it
    for age, name in enumerate(("a.b.ulaw", "a.b.gsm", "a.b.gsm.bak", "a.bc.wav", "a.b")):
        (tmp_path / name).write_bytes(b"x" * 7)
        os.utime(tmp_path / name, (1000.0 - age, 1000.0 - age))
    found = locate(row(stem))
    assert (found.piece.mixed, found.suffix, found.bytes) == (stem + ".ulaw", ".ulaw", 7)
    assert locate(row(stem), stem + ".gsm").suffix == ".gsm"
    assert locate(row(stem), str(tmp_path / "other.gsm")).suffix == ".ulaw"
    taken = frozenset({stem + ".ulaw"})
    assert locate(row(stem), stem + ".ulaw", taken).suffix == ".gsm"


def test_legs_alone_are_a_recording(tmp_path: Path) -> None:
    found = locate(row("", str(tmp_path / "r"), str(tmp_path / "t")))
    assert (found.piece.mixed, found.piece.received) == ("", str(tmp_path / "r.wav"))
    spec = external.spec_of(found, {"recording_mode": "separate", "file_format": "ulaw", "max_bytes": 4000})
    assert (spec.recording_mode, spec.file_format, spec.max_bytes, spec.dtmf_elim) == ("separate", "ulaw", 0, False)
    assert external.name_of(found, spec) == ("r.wav", "r.wav")


def test_what_the_settings_ask_for_is_given_as_far_as_one_file_can(tmp_path: Path) -> None:
    found = locate(row(str(tmp_path / "x")))
    spec = external.spec_of(found, {"recording_mode": "separate", "dtmf_elim": True, "file_format": "oki"})
    assert (spec.recording_mode, spec.dtmf_elim, spec.file_format) == ("mixed", False, "oki")
    assert external.spec_of(found, {"file_format": "mp3", "rate": 6000}) == RecordingSpec(dtmf_elim=False)


@pytest.mark.parametrize(
    ("name", "finished"),
    [
        ("out-100.wav", "out-100.wav"),
        ("Smith, J & Co;x.gsm", "Smith__J___Co_x.wav"),
        (".hidden.wav", "hidden.wav"),
        ("wide.g722", "wide.g722"),
        ("x." + "y" * 40, "x." + "y" * 15),
        ("...wav", "unnamed.wav"),
    ],
)
def test_names_are_safe(name: str, finished: str) -> None:
    found = Found(Segment(f"/spool/{name}"), Path(name).suffix or ".wav", 1)
    assert external.name_of(found, RecordingSpec())[1] == finished


@pytest.mark.parametrize(
    ("stem", "ours"),
    [
        ("/s/rec-01m7yfgtwpn5y86cx7re6wqf47", True),
        ("/s/rec-01m7yfgtwpn5y86cx7re6wqf47-2-rx", True),
        ("/s/rec-01m7yfgtwpn5y86cx7re6wqf47-in", True),
        ("/s/rec-01m7yfgtwpn5y86cx7re6wqf47-secret", True),
        ("/s/rec-01m7yfgtwpn5y86cx7re6wqf47-secret-2-tx", True),
        ("/s/rec-100", False),
        ("/s/rec-01m7yfgtwpn5y86cx7re6wqf47-theirs", False),
        ("/s/my-rec-01m7yfgtwpn5y86cx7re6wqf47", False),
    ],
)
def test_ours_are_known_by_their_names(stem: str, ours: bool) -> None:
    assert external.is_ours(row(stem)) is ours


def test_when_it_is_whole(tmp_path: Path) -> None:
    wav, gsm = tmp_path / "a.wav", tmp_path / "a.gsm"
    soundfile.write(wav, [0.0] * 800, 8000, subtype="PCM_16")
    gsm.write_bytes(b"\xd0" * 33)
    assert not external.closed((str(wav),), 0.1)  # the header may be of what it is appended to
    assert external.closed((str(wav),), 0.5)
    assert not external.closed((str(gsm),), 0.5)
    assert external.closed((str(gsm),), 1.5)
    assert not external.closed((str(wav), str(gsm)), 0.5)
    with wav.open("ab") as file:
        file.write(b"\0" * 32768)
    assert not external.closed((str(wav),), 5.0)


def test_how_often_it_grows() -> None:
    assert 2.0 < external.growth_seconds("/a.wav") < 2.1
    assert 19.0 < external.growth_seconds("/a.gsm") < 21.0
    assert 19.0 < external.growth_seconds("/a.WAV") < 21.0


def test_a_wav_of_others_that_does_not_grow_is_alarmed_as_soon_as_one_of_ours() -> None:
    assert external.slower_seconds("/a.wav") == external.slower_seconds("/a.wav16") == 0.0
    settings = RecordingSettings()
    assert settings.stalled_seconds + external.slower_seconds("/a.ulaw") + LOOK_SECONDS < 10  # what is promised
    assert 17.0 < external.slower_seconds("/a.gsm") < 19.0


def test_only_what_lies_in_our_spool_may_be_removed(tmp_path: Path) -> None:
    ours, theirs = str(tmp_path / "a.wav"), "/elsewhere/a.wav"
    made = Recording(
        "rec-1", "one", "pbx", "SIP/a", "1.1", "a", "/f", pieces=(Segment(theirs, received=ours),), adopted=True
    )
    assert external.removable(made, tmp_path) == (ours,)
    assert external.removable(made, None) == ()
    own = Recording("rec-1", "one", "pbx", "SIP/a", "1.1", "a", "/f", pieces=(Segment(theirs, received=ours),))
    assert external.removable(own, None) == (theirs, ours)
