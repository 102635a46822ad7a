"""fastagi.audio.render: Asterisk's raw files into the finished one, every shape of recording."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from made_sound import Samples, digit, ffmpeg_decode, multimon, silence, snr_db, to_int16, tone, voice, write_wav

from fastagi.audio import (
    RawPiece,
    Rendered,
    RenderPlan,
    interleave,
    is_complete,
    mix,
    open_reader,
    render,
    temporary_name,
)
from fastagi.domain.formats import FORMATS
from fastagi.errors import AudioError, BadArgument

RECEIVED = voice(4.0, seed=31, dbfs=-24)
SENT = voice(4.0, seed=32, dbfs=-24)


class Call:
    """Raw files of one call in a folder, as Asterisk leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = str(folder / "done.wav")

    def piece(
        self,
        received: Samples = RECEIVED,
        sent: Samples = SENT,
        name: str = "raw",
        offset: float | None = None,
        **more: object,
    ) -> RawPiece:
        closed = bool(more.get("closed", True))
        rate = int(more.get("rate", 8000))  # type: ignore[call-overload]
        paths = [
            write_wav(self.folder / f"{name}-{kind}.wav", samples, rate, closed)
            for kind, samples in (("m", mix(received, sent)), ("r", received), ("t", sent))
        ]
        return RawPiece(*paths, offset)

    def render(self, *pieces: RawPiece, **more: object) -> Rendered:
        plan = RenderPlan(pieces or (self.piece(),), self.target, **more)  # type: ignore[arg-type]
        made = render(plan)
        assert made.bytes == os.path.getsize(self.target)
        assert made.sha256 == hashlib.sha256(Path(self.target).read_bytes()).hexdigest()
        assert not temporary_name(Path(self.target)).exists()
        assert made.audio_seconds == pytest.approx(made.frames / plan.rate, abs=0.001)
        json.dumps(made.facts())
        return made

    def heard(self) -> Samples:
        reader = open_reader(self.target)
        out = reader.read(10**7)
        reader.close()
        return out


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return Call(tmp_path)


def with_digits(leg: Samples, *places: tuple[float, str]) -> Samples:
    out = leg.astype(float)
    for at, symbol in places:
        key = digit(symbol, 80, -8)
        start = round(at * 8000)
        out[start : start + len(key)] = key
    return to_int16(out)


def test_default_is_asterisks_mix_in_alaw(call: Call) -> None:
    made = call.render()
    assert (made.frames, made.audio_seconds, made.limit, made.digits) == (32000, 4.0, "", 0)
    assert made.bytes == 58 + 32000
    assert snr_db(mix(RECEIVED, SENT), call.heard()) > 36
    assert len(ffmpeg_decode(call.target)) == 32000
    assert not made.salvaged
    assert made.warnings == ()
    assert made.received is not None
    assert not made.one_sided


def test_separate_puts_received_left(call: Call) -> None:
    call.render(file_format="s16bit", mode="separate")
    assert np.array_equal(call.heard(), interleave(RECEIVED, SENT))


@pytest.mark.parametrize("rate", [6000, 8000, 11000, 11025, 16000])
@pytest.mark.parametrize("mode", ["mixed", "separate"])
def test_every_rate_has_its_exact_length(rate: int, mode: str, call: Call) -> None:
    piece = call.piece(RECEIVED[:31_999], SENT[:31_999])
    made = call.render(piece, file_format="ulaw", rate=rate, mode=mode)
    assert made.frames == round(31_999 * rate / 8000)
    assert len(call.heard()) == made.frames


def test_wideband_raw_files(call: Call) -> None:
    legs = voice(2.0, seed=5, rate=16000), voice(2.0, seed=6, rate=16000)
    made = call.render(call.piece(*legs, rate=16000), file_format="flac", rate=16000, raw_rate=16000)
    assert np.array_equal(call.heard(), mix(*legs))
    made = call.render(call.piece(*legs, rate=16000), rate=8000)
    assert made.frames == 16000


def test_raw_file_rate_is_converted(call: Call) -> None:
    legs = voice(2.0, seed=5, rate=16000), voice(2.0, seed=6, rate=16000)
    made = call.render(call.piece(), call.piece(*legs, name="wide", rate=16000), raw_rate=8000)
    assert made.frames == 32000 + 16000


def test_matching_raw_file_is_copied(call: Call) -> None:
    piece = call.piece()
    made = call.render(piece, file_format="s16bit")
    assert made.copied
    assert Path(call.target).read_bytes() == Path(piece.mixed).read_bytes()
    assert os.stat(call.target).st_ino != os.stat(piece.mixed).st_ino  # Asterisk's files are deleted later: not shared
    assert made.level.active_seconds > 1
    for more in (
        {"rate": 6000},
        {"max_bytes": 5000},
        {"cuts": ((1.0, 2.0),)},
        {"max_seconds": 1.0},
        {"mode": "separate"},
    ):
        assert not call.render(piece, file_format="s16bit", **more).copied


def test_digits_are_removed_from_their_leg(call: Call) -> None:
    received = with_digits(RECEIVED, (0.5, "1"), (1.0, "5"), (1.5, "#"))
    piece = call.piece(received, SENT)
    assert multimon(mix(received, SENT[:0])) == "15#"

    made = call.render(piece, file_format="s16bit", mode="separate")
    heard = call.heard()
    assert made.digits == 3
    assert [round(start, 1) for start, _ in made.digit_spans] == [0.5, 1.0, 1.5]
    assert multimon(np.ascontiguousarray(heard[:, 0])) == ""
    assert np.array_equal(heard[:, 1], SENT)  # the other party's speech survives
    inside = np.zeros(32000, bool)
    for start, end in made.digit_spans:
        inside[round(start * 8000) - 8 : round(end * 8000) + 8] = True  # spans are told to a millisecond
    assert np.array_equal(heard[~inside, 0], received[~inside])

    made = call.render(piece, file_format="s16bit")
    heard = call.heard()
    assert (made.digits, made.copied) == (3, False)
    assert multimon(heard) == ""
    assert np.array_equal(heard[~inside], mix(received, SENT)[~inside])
    core = inside & np.roll(inside, 20) & np.roll(inside, -20)
    assert np.abs(heard[core].astype(int) - SENT[core]).max() < 32768 * 10 ** (-60 / 20) * 6


def test_digits_in_both_legs_at_once(call: Call) -> None:
    made = call.render(
        call.piece(with_digits(RECEIVED, (1.0, "1")), with_digits(SENT, (1.02, "9"))), file_format="s16bit"
    )
    assert made.digits == 2
    assert multimon(call.heard()) == ""


def test_facts_do_not_tell_the_digits(call: Call) -> None:
    made = call.render(call.piece(with_digits(RECEIVED, (0.5, "7"), (1.0, "D"))), mode="mixed")
    assert made.digits == 2
    assert not any(
        "symbol" in text or '"7"' in text or "'D'" in text for text in (repr(made), json.dumps(made.facts()))
    )


def test_dtmf_elim_off_keeps_them(call: Call) -> None:
    made = call.render(
        call.piece(with_digits(RECEIVED, (0.5, "1"), (1.0, "2")), SENT[:0]), file_format="s16bit", dtmf_elim=False
    )
    assert (made.digits, made.copied) == (0, True)
    assert multimon(call.heard()) == "12"


def test_only_a_mixed_file(call: Call) -> None:
    whole = call.piece(with_digits(RECEIVED, (1.0, "4")), np.zeros(32000, np.int16))
    made = call.render(RawPiece(whole.mixed), file_format="s16bit")
    assert made.digits == 1
    assert multimon(call.heard()) == ""
    assert made.received is None
    assert any("legs are not there" in text for text in made.warnings)
    made = call.render(RawPiece(whole.mixed), dtmf_elim=False)
    assert made.warnings == ()  # the legs were not needed
    made = call.render(RawPiece(whole.mixed), mode="separate", file_format="s16bit", dtmf_elim=False)
    assert any("stands for both" in text for text in made.warnings)
    heard = call.heard()
    assert np.array_equal(heard[:, 0], heard[:, 1])


def test_only_legs_are_mixed_here(call: Call) -> None:
    piece = call.piece()
    os.unlink(piece.mixed)
    made = call.render(piece, file_format="s16bit")
    assert np.array_equal(call.heard(), mix(RECEIVED, SENT))
    assert any("-m.wav: No such file" in text for text in made.warnings)


def test_one_leg_is_broken(call: Call) -> None:
    piece = call.piece()
    Path(piece.sent).write_bytes(b"")
    made = call.render(piece, file_format="s16bit")
    assert np.array_equal(call.heard(), mix(RECEIVED, SENT))
    assert any("is empty" in text for text in made.warnings)
    made = call.render(piece, file_format="s16bit", mode="separate")
    heard = call.heard()
    assert np.array_equal(heard[:, 0], RECEIVED)
    assert np.array_equal(heard[:, 1], mix(RECEIVED, SENT))  # nothing that was said is lost
    os.unlink(piece.mixed)
    made = call.render(piece, file_format="s16bit")
    assert np.array_equal(call.heard(), RECEIVED)
    assert any("only the received side" in text for text in made.warnings)


def test_longest_of_unequal_files_counts(call: Call) -> None:
    piece = call.piece(RECEIVED, SENT[:20_000])
    write_wav(Path(piece.mixed), mix(RECEIVED, SENT)[:10_000])  # a killed Asterisk had flushed less of it
    made = call.render(piece, file_format="s16bit")
    assert made.frames == 32000
    assert np.array_equal(call.heard(), mix(RECEIVED, SENT[:20_000]))


def test_broken_headers_are_salvaged(call: Call) -> None:
    piece = call.piece(closed=False)
    made = call.render(piece, file_format="s16bit")
    assert made.salvaged
    assert np.array_equal(call.heard(), mix(RECEIVED, SENT))
    assert all(is_complete(path) for path in (piece.mixed, piece.received, piece.sent))


def test_read_only_raw_files_are_salvaged(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    piece = call.piece(closed=False)
    real = os.open

    def refuse(name: object, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_RDWR and str(name).endswith(("-m.wav", "-r.wav", "-t.wav")):
            raise PermissionError(13, "Permission denied")
        return real(name, flags, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    made = call.render(piece, file_format="s16bit")
    assert made.salvaged
    assert not made.copied
    assert np.array_equal(call.heard(), mix(RECEIVED, SENT))
    assert made.warnings == (), "nothing is lacking in the file"


def test_leg_without_audio_is_silence(call: Call) -> None:
    made = call.render(call.piece(RECEIVED, np.zeros(0, np.int16)), mode="separate", file_format="s16bit")
    heard = call.heard()
    assert np.array_equal(heard[:, 0], RECEIVED)
    assert not heard[:, 1].any()
    assert made.one_sided
    assert made.sent is not None
    assert made.sent.silent
    assert made.facts()["one_sided"] is True


@pytest.mark.parametrize("file_format", list(FORMATS))
def test_empty_recording_is_a_valid_file(file_format: str, call: Call) -> None:
    nothing = np.zeros(0, np.int16)
    call.target = str(Path(call.target).with_suffix(FORMATS[file_format].suffix))
    made = call.render(call.piece(nothing, nothing, closed=False), file_format=file_format)
    assert (made.frames, made.audio_seconds, made.salvaged, made.limit) == (0, 0.0, False, "")
    assert made.level.silent
    reader = open_reader(call.target)
    assert reader.frames <= (160 if file_format == "gsm" else 1)
    reader.close()


def test_pieces_are_joined_with_their_gap(call: Call) -> None:
    first = call.piece(RECEIVED[:16000], SENT[:16000], "one", 0.0)
    second = call.piece(SENT[:8000], RECEIVED[:8000], "two", 3.5)
    made = call.render(first, second, file_format="s16bit")
    heard = call.heard()
    assert made.frames == 28000 + 8000
    assert np.array_equal(heard[:16000], mix(RECEIVED, SENT)[:16000])
    assert not heard[16000:28000].any()
    assert np.array_equal(heard[28000:], mix(RECEIVED, SENT)[:8000])
    made = call.render(first, RawPiece(second.mixed, second.received, second.sent), file_format="s16bit")
    assert made.frames == 24000
    late = RawPiece(second.mixed, second.received, second.sent, 10**7)
    made = call.render(first, late, file_format="s16bit")
    assert made.frames == 16000 + 3600 * 8000 + 8000
    assert any("after the piece before" in text for text in made.warnings)
    early = RawPiece(second.mixed, second.received, second.sent, 0.5)  # clocks: it cannot begin inside the first
    assert call.render(first, early, file_format="s16bit").frames == 24000


@pytest.mark.parametrize("mode", ["mixed", "separate"])
def test_pause_at_the_end_is_silence(call: Call, mode: str) -> None:
    piece = call.piece(RECEIVED[:16000], SENT[:16000])
    made = call.render(piece, file_format="s16bit", mode=mode, tail_seconds=1.5)
    assert (made.frames, made.copied, made.gaps) == (28000, False, ((2.0, 3.5),))
    assert not call.heard()[16000:].any()
    made = call.render(piece, file_format="s16bit", mode=mode, tail_seconds=1.5, most_seconds=2.25)
    assert made.frames == 18000
    assert call.render(piece, file_format="s16bit", mode=mode, tail_seconds=1.5, most_seconds=1.0).frames == 16000
    made = call.render(piece, file_format="s16bit", mode=mode, tail_seconds=1.5, max_seconds=3.0)
    assert made.frames == 24000
    if mode == "mixed":
        made = call.render(piece, file_format="s16bit", tail_seconds=1.5, max_bytes=44 + 2 * 20000)
        assert (made.frames, made.limit) == (20000, "SIZE")
    made = call.render(piece, file_format="ulaw", mode=mode, tail_seconds=10**7)
    assert made.frames == 16000 + 3600 * 8000
    assert any("3600 s of silence are kept" in text for text in made.warnings)


def test_one_file_twice_is_heard_twice(call: Call) -> None:
    piece = call.piece(with_digits(RECEIVED, (1.0, "1")))
    made = call.render(piece, piece, file_format="s16bit")
    assert made.digits == 2
    heard = call.heard()
    assert np.array_equal(heard[:7000], heard[32000:39000])
    assert np.array_equal(heard[16000:32000], mix(RECEIVED, SENT)[16000:])


def test_missing_segment_is_named(call: Call) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: No such file"):
        call.render(call.piece(), RawPiece(str(call.folder / "gone.wav")))
    assert not os.path.exists(call.target)


def test_cuts_take_pauses_out(call: Call) -> None:
    made = call.render(file_format="s16bit", cuts=((3.0, 3.5), (1.0, 2.0), (1.5, 2.25), (3.9, 99.0)))
    whole = mix(RECEIVED, SENT)
    wanted = np.concatenate((whole[:8000], whole[18000:24000], whole[28000:31200]))
    assert made.frames == len(wanted)
    assert np.array_equal(call.heard(), wanted)


def test_everything_is_cut(call: Call) -> None:
    assert call.render(cuts=((0.0, 1e9),)).frames == 0


def test_max_seconds(call: Call) -> None:
    made = call.render(file_format="s16bit", max_seconds=1.25)
    assert (made.frames, made.limit) == (10_000, "")
    assert np.array_equal(call.heard(), mix(RECEIVED, SENT)[:10_000])


def test_cut_off_digits_are_not_counted(call: Call) -> None:
    piece = call.piece(with_digits(RECEIVED, (0.5, "1"), (3.0, "2")))
    assert call.render(piece, max_seconds=2.0).digits == 1
    assert call.render(piece, cuts=((0.0, 1.0),)).digits == 1


def test_target_keeps_reservations_permissions(call: Call) -> None:
    Path(call.target).touch(mode=0o640)
    os.chmod(call.target, 0o640)
    first = call.render()
    assert os.stat(call.target).st_mode & 0o777 == 0o640
    assert call.render().sha256 == first.sha256


def test_leftover_of_a_crash_is_overwritten(call: Call) -> None:
    leftover = temporary_name(Path(call.target))
    leftover.write_bytes(b"x" * 10**6)
    assert call.render().bytes == 58 + 32000
    assert not leftover.exists()


def test_link_at_temporary_name_is_ignored(call: Call) -> None:
    victim = call.folder / "victim"
    victim.write_text("precious")
    temporary_name(Path(call.target)).symlink_to(victim)
    assert call.render().bytes == 58 + 32000
    assert not Path(call.target).is_symlink()
    assert victim.read_text() == "precious"


def test_bad_plans_touch_no_file(call: Call) -> None:
    with pytest.raises(BadArgument):
        RenderPlan((call.piece(),), call.target, "oki", mode="separate")
    with pytest.raises(BadArgument):
        RenderPlan((call.piece(),), call.target, "opus", 11025)
    with pytest.raises(AudioError, match="no raw file"):
        RenderPlan((), call.target)
    with pytest.raises(AudioError, match="no raw file was named"):
        call.render(RawPiece())


def test_adopted_headerless_file(call: Call) -> None:
    path = call.folder / "adopted.ulaw"
    path.write_bytes(b"\xff" * 16000)
    assert call.render(RawPiece(str(path)), dtmf_elim=False).frames == 16000


def test_stereo_is_no_raw_recording(call: Call) -> None:
    made = call.folder / "stereo.wav"
    call.target = str(made)
    call.render(mode="separate")
    call.target = str(call.folder / "again.wav")
    with pytest.raises(AudioError, match="2 channels"):
        call.render(RawPiece(str(made)))


def test_levels_are_of_kept_audio(call: Call) -> None:
    loud = np.concatenate((tone(500, 1.0, 0), silence(1.0)))
    piece = call.piece(loud, np.zeros(0, np.int16))
    assert call.render(piece).level.peak_dbfs == pytest.approx(-3.3, abs=0.3)
    assert call.render(piece, cuts=((0.0, 1.1),)).level.peak_dbfs < -50
