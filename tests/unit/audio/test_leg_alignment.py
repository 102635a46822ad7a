"""fastagi.audio.alignment: the legs that Asterisk 16 leaves out of step, put back by the mixed recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sound import Samples, digit, multimon, to_int16, voice, write_wav

from fastagi.audio import RawPiece, Rendered, RenderPlan, interleave, mix, open_reader, render

UNIT = 160
RECEIVED = voice(30.0, seed=81, dbfs=-24)
SENT = voice(30.0, seed=82, dbfs=-24)
Activity = list[tuple[bool, bool, int]]


def call(activity: Activity, received: Samples = RECEIVED, sent: Samples = SENT) -> tuple[Samples, Samples, Samples]:
    """(mixed, received, sent) in step, each leg zero where no frame flowed."""
    legs = [], []
    at = 0
    for has_received, has_sent, units in activity:
        stretch = slice(at, at + units * UNIT)
        for leg, sound, has in ((legs[0], received, has_received), (legs[1], sent, has_sent)):
            leg.append(sound[stretch] if has else np.zeros(len(sound[stretch]), np.int16))
        at += units * UNIT
    r, s = (np.concatenate(leg) if leg else np.zeros(0, np.int16) for leg in legs)
    return mix(r, s), r, s


def squeezed(leg: Samples, flows: list[bool], activity: Activity) -> Samples:
    """The leg as Asterisk 16 writes it: only the frames that flowed."""
    keep = np.concatenate([np.full(units * UNIT, has) for has, (_, _, units) in zip(flows, activity, strict=True)])
    return leg[keep[: len(leg)]]


def write_call(folder: Path, activity: Activity) -> tuple[RawPiece, Samples, Samples, Samples]:
    m, r, s = call(activity)
    piece = RawPiece(
        write_wav(folder / "m.wav", m),
        write_wav(folder / "r.wav", squeezed(r, [a[0] for a in activity], activity)),
        write_wav(folder / "t.wav", squeezed(s, [a[1] for a in activity], activity)),
    )
    return piece, m, r, s


def finish(folder: Path, piece: RawPiece, **more: object) -> tuple[Rendered, Samples]:
    target = str(folder / "done.wav")
    made = render(RenderPlan((piece,), target, "s16bit", **more))  # type: ignore[arg-type]
    reader = open_reader(target)
    out = reader.read(10**8)
    reader.close()
    return made, out


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 120)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_separate_sides_are_in_step_again(tmp_path_factory: pytest.TempPathFactory, activity: Activity) -> None:
    folder = tmp_path_factory.mktemp("call")
    piece, m, r, s = write_call(folder, activity)
    made, out = finish(folder, piece, mode="separate", dtmf_elim=False)
    assert made.warnings == ()
    assert np.array_equal(out, interleave(r, s)[: len(m)])


def test_only_digits_differ_from_asterisks_mix(tmp_path: Path) -> None:
    activity = [(False, True, 100), (True, True, 150), (True, False, 75), (False, False, 50), (True, True, 200)]
    received = RECEIVED.copy()
    for second, symbol in ((3.0, "1"), (9.0, "5")):
        key = to_int16(digit(symbol, 80, -8))
        received[round(second * 8000) : round(second * 8000) + len(key)] = key
    m, r, s = call(activity, received)
    piece = RawPiece(
        write_wav(tmp_path / "m.wav", m),
        write_wav(tmp_path / "r.wav", squeezed(r, [a[0] for a in activity], activity)),
        write_wav(tmp_path / "t.wav", squeezed(s, [a[1] for a in activity], activity)),
    )
    made, out = finish(tmp_path, piece)
    assert made.digits == 2
    assert [round(start, 1) for start, _ in made.digit_spans] == [3.0, 9.0]
    outside = np.ones(len(m), bool)
    for start, end in made.digit_spans:
        outside[round(start * 8000) - 8 : round(end * 8000) + 8] = False
    assert np.array_equal(out[outside], m[outside])
    assert multimon(out) == ""


def test_partial_last_frame(tmp_path: Path) -> None:
    piece, m, r, s = write_call(tmp_path, [(False, True, 30), (True, True, 60)])
    for path, leg in ((piece.mixed, m), (piece.sent, s), (piece.received, r[30 * UNIT :])):
        write_wav(Path(path), leg[:-37])
    _, out = finish(tmp_path, piece, mode="separate")
    assert np.array_equal(out, interleave(r, s)[:-37])


@pytest.mark.parametrize("lost", [1, 100, UNIT * 40])
def test_shorter_leg_of_killed_asterisk(lost: int, tmp_path: Path) -> None:
    """What only the mixed file still has is kept from there."""
    piece, m, r, s = write_call(tmp_path, [(False, True, 30), (True, True, 100)])
    write_wav(Path(piece.received), r[30 * UNIT : len(r) - lost])
    _made, out = finish(tmp_path, piece, dtmf_elim=False)
    assert np.array_equal(out, m)
    _, out = finish(tmp_path, piece, mode="separate")
    whole = (len(r) - lost) // UNIT * UNIT
    assert np.array_equal(out[:whole], interleave(r, s)[:whole])
    assert np.array_equal(mix(out[whole:, 0], out[whole:, 1]), m[whole:])


def test_shorter_mix_of_killed_asterisk(tmp_path: Path) -> None:
    piece, m, _r, _s = write_call(tmp_path, [(True, True, 100), (False, True, 20), (True, True, 100)])
    write_wav(Path(piece.mixed), m[: 150 * UNIT])
    made, out = finish(tmp_path, piece)
    assert np.array_equal(out, m)
    assert made.frames == len(m)


def test_legs_of_another_call_are_ignored(tmp_path: Path) -> None:
    piece, m, _, _ = write_call(tmp_path, [(True, True, 100)])
    write_wav(Path(piece.received), voice(1.5, seed=99))
    made, out = finish(tmp_path, piece)
    assert np.array_equal(out, m)
    assert any("not in step" in text for text in made.warnings)
    made, out = finish(tmp_path, piece, mode="separate")
    assert any("not in step" in text for text in made.warnings)
    assert np.array_equal(out[: len(SENT[: len(m)]), 1], SENT[: len(m)])


def test_long_call_is_aligned_in_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    activity = [(bool(rng.random() < 0.6), bool(rng.random() < 0.8), int(rng.integers(1, 90))) for _ in range(600)]
    long_received, long_sent = np.tile(RECEIVED, 20), np.tile(SENT[:-777], 20)
    m, r, s = call(activity, long_received, long_sent)
    piece = RawPiece(
        write_wav(tmp_path / "m.wav", m),
        write_wav(tmp_path / "r.wav", squeezed(r, [a[0] for a in activity], activity)),
        write_wav(tmp_path / "t.wav", squeezed(s, [a[1] for a in activity], activity)),
    )
    made, out = finish(tmp_path, piece, mode="separate", dtmf_elim=False)
    assert np.array_equal(out, interleave(r, s))
    assert made.warnings == ()
