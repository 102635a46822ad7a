"""What a caller may ask for as a name and as a format."""

from __future__ import annotations

import pytest

from fastagi.domain.formats import FORMATS, bit_rate_for, check_format, format_named
from fastagi.domain.naming import DEEPEST, LONGEST_NAME, distinct, expand, relative_path
from fastagi.domain.spec import LONGEST_SECONDS, RecordingSpec, with_defaults
from fastagi.errors import BadArgument

WAV = FORMATS["alaw"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("x", "x.wav"),
        ("x.WAV", "x.WAV"),
        ("a//b/./x.wav", "a/b/x.wav"),
        ("x.txt", "x.txt.wav"),
        ("v1.2", "v1.2.wav"),
        ("/".join("d" * DEEPEST), "/".join("d" * DEEPEST) + ".wav"),
        ("n" * (LONGEST_NAME - 4), "n" * (LONGEST_NAME - 4) + ".wav"),
        ("d" * LONGEST_NAME + "/x", "d" * LONGEST_NAME + "/x.wav"),
    ],
)
def test_names_that_are_good(name: str, path: str) -> None:
    assert relative_path(name, WAV) == path


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        (None, "is empty"),
        ("a\nb", "control character"),
        ("a\x7fb", "control character"),
        ("/x", "must be relative"),
        ("~x", "must be relative"),
        ("a\\b", "must be relative"),
        ("a/../b", "leaves"),
        (".", "1 to 16 parts"),
        ("/".join("d" * (DEEPEST + 1)), "1 to 16 parts"),
        ("x.mp3", "makes .wav files"),
        ("n" * (LONGEST_NAME - 3), "longer than 200 bytes"),
        ("ä" * 101 + "/x", "longer than 200 bytes"),
        (".x", "start with a dot"),
        (".d/x", "start with a dot"),
    ],
)
def test_names_that_are_refused(name: str, wrong: str) -> None:
    with pytest.raises(BadArgument, match=wrong):
        relative_path(name, WAV)


def test_fields_are_filled_in() -> None:
    fields = {"caller": "../+49 221", "none": ".."}
    assert expand("{caller}/{none}-{date}", fields, 0) == "_+49_221/unknown-1970-01-01"
    assert expand("{date:%H}-{long}", {"long": "y" * 90}, 3600) == "01-" + "y" * 80
    with pytest.raises(BadArgument, match="there are caller, date, none"):
        expand("{callee}", fields, 0)


def test_taken_name_gets_the_id() -> None:
    assert distinct("/r/a.b/x.wav", "rec-1") == "/r/a.b/x-rec-1.wav"
    assert distinct("/r/x", "rec-1") == "/r/x-rec-1"


def test_formats_are_the_guides() -> None:
    rates = (6000, 8000, 11000, 11025, 16000)
    table = {f.name: (f.container, f.rates, f.channels, f.suffix) for f in FORMATS.values()}
    assert table == {
        **dict.fromkeys(("alaw", "ulaw", "s16bit", "u8bit"), ("wav", rates, 2, ".wav")),
        **dict.fromkeys(("oki", "ima"), ("wav", rates, 1, ".wav")),
        "flac": ("flac", rates, 2, ".flac"),
        "opus": ("opus", (8000, 16000), 2, ".opus"),
        "mp3": ("mp3", (8000, 11025, 16000), 2, ".mp3"),
        "gsm": ("gsm", (8000,), 1, ".gsm"),
    }


def test_format_faults() -> None:
    with pytest.raises(BadArgument, match="file_format='aac' is not known: use one of alaw"):
        format_named("aac")
    with pytest.raises(BadArgument, match="file_format=\\[\\] is not known"):
        format_named([])  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="recording_mode='both'"):
        check_format("alaw", 8000, "both")
    for rate in (8001, True, 8000.0):
        with pytest.raises(BadArgument, match="cannot be recorded as gsm: use one of 8000"):
            check_format("gsm", rate, "mixed")  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match=r"takes one of alaw, ulaw, s16bit, u8bit, flac, opus, mp3$"):
        check_format("oki", 8000, "separate")
    assert check_format("oki", 8000, "mixed").channels == 1
    assert check_format("alaw", 8000, "separate") is WAV


@pytest.mark.parametrize(
    ("name", "rate", "mode", "asked", "expected"),
    [
        ("alaw", 8000, "mixed", 0, 0),
        ("opus", 8000, "mixed", 0, 16_000),
        ("opus", 16000, "separate", 0, 48_000),
        ("mp3", 11025, "mixed", 0, 24_000),
        ("mp3", 16000, "mixed", 0, 32_000),
        ("opus", 8000, "mixed", 6_000, 6_000),
        ("opus", 8000, "separate", 12_000, 12_000),
        ("opus", 16000, "mixed", 128_000, 128_000),
        *(("mp3", 8000, "mixed", 1000 * k, 1000 * k) for k in (8, 16, 24, 32, 40, 48, 56, 64)),
        *(("mp3", 16000, "mixed", 1000 * k, 1000 * k) for k in (8, 56, 64, 80, 96, 112, 128, 144, 160)),
    ],
)
def test_bit_rates(name: str, rate: int, mode: str, asked: int, expected: int) -> None:
    assert bit_rate_for(name, rate, mode, asked) == expected


@pytest.mark.parametrize(
    ("name", "rate", "mode", "asked", "wrong"),
    [
        ("alaw", 8000, "mixed", 8000, "record opus and mp3"),
        ("opus", 8000, "mixed", 5_999, "use 6000 to 128000"),
        ("opus", 8000, "separate", 11_999, "use 12000 to 128000"),
        ("opus", 8000, "mixed", 128_001, "use 6000 to 128000"),
        ("mp3", 8000, "mixed", 80_000, "one of 8000, 16000, 24000, 32000, 40000, 48000, 56000, 64000"),
        ("mp3", 16000, "mixed", 25_000, "112000, 128000, 144000, 160000"),
        ("mp3", 16000, "mixed", True, "whole number"),
        ("mp3", 16000, "mixed", 1.5, "whole number"),
    ],
)
def test_bit_rates_that_are_refused(name: str, rate: int, mode: str, asked: int, wrong: str) -> None:
    with pytest.raises(BadArgument, match=wrong):
        bit_rate_for(name, rate, mode, asked)


def test_spec_of_the_seed() -> None:
    spec = RecordingSpec()
    assert spec.to_dict() == {
        "file_format": "alaw",
        "rate": 8000,
        "seconds_timeout": None,
        "max_bytes": 0,
        "milliseconds_max_silence": 0,
        "milliseconds_initial_silence": 0,
        "dtmf_elim": True,
        "recording_mode": "mixed",
        "encryption": "",
        "bit_rate": 0,
        "engine": "mixmonitor",
        "pause_mode": "silence",
        "beep_seconds": 0,
        "beep_start": False,
        "beep_stop": False,
        "follow": True,
    }
    assert (spec.form, spec.channels, spec.wideband, spec.raw_rate, spec.needs_legs) == (WAV, 1, False, 8000, True)


def test_spec_of_two_channels() -> None:
    """Limits of size and silence are the mixed file's, as the seed says."""
    limits = {"max_bytes": 5000, "milliseconds_max_silence": 3, "milliseconds_initial_silence": 4}
    one, two = RecordingSpec(**limits), RecordingSpec(recording_mode="separate", **limits)  # type: ignore[arg-type]
    assert (one.byte_limit, one.silence_limits, one.channels) == (5000, (4, 3), 1)
    assert (two.byte_limit, two.silence_limits, two.channels) == (0, (0, 0), 2)
    assert RecordingSpec(recording_mode="separate", dtmf_elim=False).needs_legs
    assert not RecordingSpec(dtmf_elim=False).needs_legs


@pytest.mark.parametrize(("rate", "raw"), [(6000, 8000), (11025, 8000), (16000, 16000)])
def test_raw_rate_follows_the_file(rate: int, raw: int) -> None:
    assert RecordingSpec(rate=rate).raw_rate == raw


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"max_bytes": -1}, "max_bytes=-1"),
        ({"max_bytes": True}, "max_bytes=True"),
        ({"max_bytes": 1.0}, "max_bytes=1.0"),
        ({"max_bytes": 2**53 + 1}, "max_bytes"),
        ({"max_bytes": 399}, "use 400 or more"),
        ({"file_format": "opus", "max_bytes": 3999}, "use 4000 or more"),
        ({"seconds_timeout": 0}, "seconds_timeout"),
        ({"seconds_timeout": LONGEST_SECONDS + 1}, "seconds_timeout"),
        ({"follow": 1}, "follow=1"),
        ({"beep_start": "yes"}, "beep_start"),
        ({"engine": "dahdi"}, "engine='dahdi'"),
        ({"pause_mode": "skip"}, "pause_mode='skip'"),
    ],
)
def test_spec_faults(asked: dict[str, object], wrong: str) -> None:
    with pytest.raises(BadArgument, match=wrong):
        RecordingSpec(**asked)  # type: ignore[arg-type]


def test_spec_at_its_limits() -> None:
    RecordingSpec(max_bytes=400, seconds_timeout=LONGEST_SECONDS)
    RecordingSpec(recording_mode="separate", max_bytes=1)
    RecordingSpec(max_bytes=2**53)
    RecordingSpec(file_format="mp3", max_bytes=4000)
    assert LONGEST_SECONDS == 366 * 24 * 3600


def test_default_bit_rate_is_the_codecs() -> None:
    defaults = {"file_format": "mp3", "bit_rate": 16_000}
    assert with_defaults(defaults, {"rate": 8000}) == {**defaults, "rate": 8000}
    assert with_defaults(defaults, {"file_format": "opus"}) == {"file_format": "opus"}
    assert with_defaults(defaults, {"rate": 16000}) == {"file_format": "mp3", "rate": 16000}
    assert with_defaults(defaults, {"file_format": "opus", "bit_rate": 8000})["bit_rate"] == 8000
    assert with_defaults({}, {"file_format": "opus"}) == {"file_format": "opus"}
