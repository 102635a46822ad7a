"""fastagi.audio.dtmf and elimination: every digit found, no speech taken for one, nothing else touched."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from made_sound import DBM0_PEAK, SYMBOLS, Samples, digit, multimon, silence, snr_db, to_int16, tone, voice

from fastagi.audio import Digit, DtmfScanner, Encoder, eliminate, open_reader, spans

RATE = 8000
Placed = list[tuple[int, int, str]]


def scan(samples: Samples, rate: int = RATE, block: int = 1 << 17) -> list[Digit]:
    scanner = DtmfScanner(rate)
    for start in range(0, len(samples), block):
        scanner.feed(samples[start : start + block])
    return scanner.finish()


def symbols(digits: list[Digit]) -> str:
    return "".join(d.symbol for d in digits)


def keypad(
    rng: np.random.Generator,
    ms: float,
    dbm0: float = -10,
    twist: float = 0,
    off: tuple[float, float] = (0, 0),
    snr: float | None = None,
    rate: int = RATE,
) -> tuple[Samples, Placed]:
    """All sixteen digits, 40 to 60 ms apart, and where they are."""
    parts, placed, at = [np.zeros(rate // 20)], [], rate // 20
    for symbol in SYMBOLS:
        sound = digit(symbol, ms, dbm0, twist, off, rate, rng.uniform(0, 6))
        pause = np.zeros(int(rate / 1000 * rng.integers(40, 60)))
        placed.append((at, at + len(sound), symbol))
        parts += [sound, pause]
        at += len(sound) + len(pause)
    samples = np.concatenate(parts)
    if snr is not None:
        samples += rng.normal(0, DBM0_PEAK * 10 ** ((dbm0 - snr) / 20), len(samples))
    return to_int16(samples), placed


@pytest.mark.parametrize("ms", [40, 50, 60, 80, 100])
@pytest.mark.parametrize("dbm0", [-7, -10, -20, -30])
def test_every_digit_is_found_and_covered(ms: int, dbm0: int) -> None:
    rng = np.random.default_rng(ms - dbm0)
    for twist in (0, 4, -6, 8, -8):
        for off in ((0.0, 0.0), (0.015, 0.015), (-0.015, -0.015), (0.015, -0.015)):
            for snr in (None, 15, 10):
                samples, placed = keypad(rng, ms, dbm0, twist, off, snr)
                digits = scan(samples)
                assert symbols(digits) == SYMBOLS, (twist, off, snr)
                for found, (start, end, _) in zip(digits, placed, strict=True):
                    assert found.start <= start + 24  # 3 ms of a tone are no digit for anybody
                    assert found.end >= end - 24
                    assert found.end - found.start <= end - start + 0.05 * RATE


def test_loud_digits() -> None:
    samples, _ = keypad(np.random.default_rng(1), 60, -3)
    assert symbols(scan(samples)) == SYMBOLS


@pytest.mark.parametrize("file_format", ["alaw", "ulaw"])
def test_digits_that_came_through_g711(file_format: str, tmp_path: object) -> None:
    for dbm0 in (-7, -20, -30):
        samples, _ = keypad(np.random.default_rng(3), 45, dbm0, 4, (0.01, -0.01), 15)
        path = f"{tmp_path}/a.wav"
        with Encoder(path, file_format, RATE) as encoder:
            encoder.write(samples)
        reader = open_reader(path)
        heard = reader.read(10**6)
        reader.close()
        assert symbols(scan(heard)) == SYMBOLS


@pytest.mark.parametrize("block", [1, 39, 160, 4096, 1 << 17])
def test_block_size_changes_nothing(block: int) -> None:
    samples, _ = keypad(np.random.default_rng(4), 50, -12, snr=20)
    samples = np.concatenate((voice(11.5, seed=6), samples, voice(2.0, seed=7)))  # across the edge of a 12 s chunk
    if block == 1:
        samples = samples[88_000:104_000]
    assert scan(samples, block=block) == scan(samples, block=10**9)


def test_digit_at_chunk_edge_is_found() -> None:
    sound = to_int16(digit("5", 50, -10))
    for shift in range(-600, 600, 37):
        at = 12 * RATE + shift
        samples = np.zeros(13 * RATE, np.int16)
        samples[at : at + len(sound)] = sound
        found = scan(samples)
        assert symbols(found) == "5"
        assert found[0].start <= at
        assert found[0].end >= at + len(sound)


def test_digits_at_start_and_end() -> None:
    one = to_int16(digit("1", 60))
    samples = np.concatenate((one, silence(0.2), to_int16(digit("#", 60))))
    found = scan(samples)
    assert symbols(found) == "1#"
    assert found[0].start == 0
    assert found[1].end == len(samples)


def test_long_digit_differs_from_repeated_one() -> None:
    held = np.concatenate((silence(0.3), to_int16(digit("9", 30_000)), silence(0.3)))
    found = scan(held)
    assert symbols(found) == "9"
    assert found[0].end - found[0].start >= 30 * RATE
    key = to_int16(digit("9", 60))
    assert symbols(scan(np.concatenate((key, silence(0.06), key)))) == "99"


def test_wideband_leg() -> None:
    samples, _ = keypad(np.random.default_rng(5), 60, -12, rate=16000)
    assert symbols(scan(samples, 16000)) == SYMBOLS


@pytest.mark.parametrize("off", [(0.035, 0.035), (-0.035, -0.035)])
def test_detuned_tones_are_no_digits(off: tuple[float, float]) -> None:
    """Tones that are off by 3.5 % must be refused by the standard."""
    samples, _ = keypad(np.random.default_rng(6), 80, -10, off=off)
    assert scan(samples) == []


@pytest.mark.parametrize(
    "pair", [(350, 440), (440, 480), (480, 620), (1100, 1100), (2100, 2100), (941, 941), (697, 852)]
)
def test_call_progress_tones_are_no_digits(pair: tuple[float, float]) -> None:
    both = tone(pair[0], 3.0, -13).astype(int) + tone(pair[1], 3.0, -13)
    assert scan(to_int16(both)) == []


@pytest.mark.slow
def test_talk_off() -> None:
    """Voices and noise for 20 minutes; hours of recorded speech are benchmarks/audio's."""
    rng = np.random.default_rng(8)
    for seed in range(20):
        assert scan(voice(55.0, seed=seed)) == [], seed
    assert scan(to_int16(rng.normal(0, 3000, 60 * RATE))) == []


def gliding(parts: list[tuple[float, float, float]], seconds: float) -> Samples:
    """Tones (gain, from Hz, to Hz) together, with silence around."""
    count = round(seconds * RATE)
    out = np.zeros(count)
    for gain, start, end in parts:
        out += gain * np.sin(2 * np.pi * np.cumsum(np.linspace(start, end, count)) / RATE)
    return np.concatenate((np.zeros(800, np.int16), to_int16(6000 * out), np.zeros(800, np.int16)))


def test_gliding_tones_are_no_digit() -> None:
    assert symbols(scan(gliding([(1, 697, 697), (1, 1209, 1209)], 0.1))) == "1"
    assert scan(gliding([(1, 690, 704), (1, 1197, 1221)], 0.1)) == []


def test_high_voice_is_no_digit() -> None:
    """The one false alarm that 13 hours of speech brought: the 3rd to 5th harmonic of a 237 Hz voice, gliding."""
    for start, end, seconds in ((239.5, 236.5, 0.05), (264.0, 216.0, 0.5), (236.0, 265.0, 0.3)):
        harmonics = [(gain, h * start, h * end) for h, gain in ((3, 0.3), (4, 1.0), (5, 0.7))]
        assert scan(gliding(harmonics, seconds)) == []


@pytest.mark.parametrize("snr", [20, 15])
def test_digits_over_speech(snr: int) -> None:
    rng = np.random.default_rng(snr)
    speech = voice(120.0, seed=40, dbfs=-27).astype(float)
    wanted: Placed = []
    at = RATE
    while at < len(speech) - RATE:
        symbol, ms = SYMBOLS[rng.integers(16)], int(rng.integers(50, 110))
        sound = digit(symbol, ms, 0, phase=rng.uniform(0, 6))
        power = max(np.mean(speech[at : at + len(sound)] ** 2), (DBM0_PEAK * 10 ** (-30 / 20)) ** 2 / 10 ** (snr / 10))
        gain = np.sqrt(power * 10 ** (snr / 10) / np.mean(sound**2))
        if gain < 10 ** (-4 / 20):
            speech[at : at + len(sound)] += gain * sound
            wanted.append((at, at + len(sound), symbol))
        at += 4000
    samples = to_int16(speech)
    found = scan(samples)
    hits = sum(any(d.symbol == s and d.start < end and d.end > start for d in found) for start, end, s in wanted)
    assert len(wanted) > 100
    assert hits >= (1.0 if snr == 20 else 0.99) * len(wanted)
    assert len(found) <= len(wanted)
    if snr == 20:
        assert len(multimon(samples)) > 0.9 * len(wanted)
        assert multimon(eliminate(samples, 0, spans(found))) == ""


@pytest.mark.parametrize("snr", [None, 20])
def test_nothing_is_left_for_multimon(snr: float | None) -> None:
    rng = np.random.default_rng(11)
    everything = [
        keypad(rng, ms, dbm0, twist, snr=snr)[0]
        for ms in (40, 60, 100)
        for dbm0, twist in ((-7, 0), (-20, 4), (-28, -6))
    ]
    samples = np.concatenate(everything)
    assert len(multimon(samples)) >= 90  # the judge hears them, all but the quietest
    clean = eliminate(samples, 0, spans(scan(samples)))
    assert multimon(clean) == ""


def test_elimination_leaves_comfort_noise_only() -> None:
    """Samples outside the spans stay as they are."""
    samples, placed = keypad(np.random.default_rng(12), 60, -10)
    talk = voice(len(samples) / RATE, seed=12, dbfs=-45)[: len(samples)]
    samples = to_int16(samples.astype(float) + talk)
    ranges = spans(scan(samples))
    clean = eliminate(samples, 0, ranges)
    inside = np.zeros(len(samples), bool)
    for start, end in ranges:
        inside[start:end] = True
    assert np.array_equal(clean[~inside], samples[~inside])
    assert 20 * np.log10(clean[inside].astype(float).std() / 32768) == pytest.approx(-60, abs=1)
    assert inside[placed[0][0] : placed[0][1]].all()
    assert snr_db(samples[~inside], clean[~inside]) > 100
    pieces = [eliminate(samples[i : i + 333], i, ranges) for i in range(0, len(samples), 333)]
    assert np.array_equal(np.concatenate(pieces), clean)


def test_elimination_without_digits_copies_nothing() -> None:
    samples = voice(1.0)
    assert eliminate(samples, 0, []) is samples
    assert eliminate(samples, 0, [(9000, 9100)]) is samples


def test_spans_are_joined_and_in_order() -> None:
    found = [Digit(0, 100, "1"), Digit(90, 200, "2"), Digit(300, 400, "3")]
    assert spans(found) == [(0, 200), (300, 400)]
    assert all(a[1] < b[0] for a, b in pairwise(spans(found)))


def test_nothing_and_almost_nothing() -> None:
    assert scan(np.zeros(0, np.int16)) == []
    assert scan(np.zeros(1, np.int16)) == []
    assert scan(np.full(30_000, -32768, np.int16)) == []


@pytest.mark.parametrize("rate", [0, -8000, 11025])
def test_impossible_rate(rate: int) -> None:
    with pytest.raises(ValueError, match="200"):
        DtmfScanner(rate)


@pytest.mark.parametrize("twist", [0, 7, -7])
@pytest.mark.parametrize(("over", "least", "left"), [(10, 23, 0), (6, 21, 0), (0, 17, 2)])
def test_digits_under_a_voice(over: int, least: int, left: int, twist: int) -> None:
    """Of 23 digits at +6 dB over speech, multimon-ng heard 5 after their removal, at 0 dB 6."""
    rng = np.random.default_rng(over)
    speech = voice(36.0, seed=61, dbfs=-26)
    loud = np.sqrt(np.mean(speech[: len(speech) // 80 * 80].astype(float).reshape(-1, 80) ** 2, axis=1))
    level = np.mean(loud[loud > loud.max() / 20] ** 2)
    mixed, places = speech.astype(float), [RATE + 12_000 * n for n in range(23)]
    for at in places:
        key = digit(SYMBOLS[rng.integers(16)], 100, 0, twist, phase=rng.uniform(0, 6))
        mixed[at : at + 800] += key * np.sqrt(level * 10 ** (over / 10) / np.mean(key**2))
    samples = to_int16(mixed)
    found = scan(samples)
    assert sum(any(d.start < at + 800 and d.end > at for d in found) for at in places) >= least
    assert len(multimon(eliminate(samples, 0, spans(found)))) <= left + len(multimon(speech))
    assert all(any(d.start < at + 1200 and d.end > at - 400 for at in places) for d in found), "and nothing else"
    assert scan(samples, block=777) == found


def test_voice_alone_has_no_faint_digits() -> None:
    """What is taken for a digit beside another one would be too much elsewhere."""
    for seed in range(30, 36):
        assert scan(voice(55.0, seed=seed, dbfs=-20)) == []
