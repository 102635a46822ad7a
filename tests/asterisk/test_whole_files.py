"""The finished files of real calls: formats, rates, sides in step, digits removed, encryption; others' tools judge."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from fastagi import AesCbcCipher, AesGcmCipher, AgeCipher, Error, RecordingMetadata
from fastagi.cipher import open_encrypted
from fastagi.errors import CipherError
from support.call_harness import bytes_of, heard, multimon, seconds, share_of, told_of
from support.finished_files import in_directory
from support.recorder_harness import Scene
from support.sox_ng import sox_ng

LOW = 440.0

FORMATS: dict[str, dict[str, Any]] = {
    "alaw": {"rate": 8000},
    "ulaw": {"rate": 6000},
    "oki": {"rate": 8000},
    "ima": {"rate": 11025},
    "s16bit": {"rate": 11000},
    "u8bit": {"rate": 11025},
    "flac": {"rate": 6000},
    "opus": {"rate": 8000},
    "mp3": {"rate": 11025},
    "gsm": {"rate": 8000},
}


def ran(*command: str, data: bytes = b"") -> bytes:
    """What a program prints.

    :raises AssertionError: it failed
    """
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def content(told: RecordingMetadata) -> bytes:
    return Path(told.file_path).read_bytes()


def by_sox(told: RecordingMetadata, kind: str, rate: int) -> np.ndarray[Any, Any]:
    """sox knows no OKI in WAV: 60 bytes off, and raw."""
    raw = ["-t", "raw", "-e", "signed", "-b", "16", "-"]
    if kind != "oki":
        sox = sox_ng() if kind == "opus" else ["sox"]
        return np.frombuffer(ran(*sox, told.file_path, *raw), np.int16)
    data = Path(told.file_path).read_bytes()[60:]
    return np.frombuffer(ran("sox", "-t", "vox", "-r", str(rate), "-", *raw, data=data), np.int16)


def by_ffmpeg(told: RecordingMetadata) -> np.ndarray[Any, Any]:
    return np.frombuffer(ran("ffmpeg", "-v", "error", "-i", told.file_path, "-f", "s16le", "-"), np.int16)


async def test_every_format_on_one_call_opens_in_sox_and_ffmpeg(scene22: Scene) -> None:
    scene = scene22

    @scene.app.route("formats")
    async def formats(call: Any) -> None:
        for kind, options in FORMATS.items():
            assert await call.recorder(kind).start(kind, file_format=kind, **options)
        await call.exec("Wait", 3)
        for kind in FORMATS:
            await call.recorder(kind).stop()

    await scene.call("formats", far_end="Local/loop-low@whole/n")
    for kind, options in FORMATS.items():
        told = await told_of(scene, kind)
        rate = options["rate"]
        assert (told.extra["file_format"], told.extra["rate"], told.extra["state"]) == (kind, rate, "IDLE")
        frames = round(told.extra["audio_seconds"] * rate)
        assert frames > 2 * rate
        at = 48000 if kind == "opus" else rate
        for judge, samples in {"ffmpeg": by_ffmpeg(told), "sox": by_sox(told, kind, rate)}.items():
            length = len(samples) * rate / at
            assert abs(length - frames) <= (2 if kind in ("alaw", "ulaw", "s16bit", "u8bit", "flac", "oki") else 2000)
            middle = samples[at // 2 : 2 * at].astype(np.float32) / 32768
            assert share_of(middle, LOW, at) > 0.9, (kind, judge)


async def test_wideband_calls_are_recorded_at_16_khz(scene: Scene) -> None:
    """A tone of 6 kHz, that no telephone band has, out of Asterisk's .wav16."""
    time = np.arange(16000 * 20) / 16000
    tone = (0.3 * np.sin(2 * np.pi * 6000 * time)).astype(np.float32)
    folder = scene.asterisk.sounds / "whole"
    soundfile.write(folder / "wide.sln16", tone, 16000, subtype="PCM_16", format="RAW")

    @scene.app.route("wide")
    async def wide(call: Any) -> None:
        options = {"file_format": "s16bit", "rate": 16000}
        assert await call.recorder("mixed").start("mixed", **options)
        assert await call.recorder("sides").start("sides", recording_mode="separate", **options)
        assert {path.suffix for path in scene.spool.iterdir()} == {".wav16"}
        await call.exec("Wait", 3)

    async with scene.asterisk.ami() as ami:
        headers = {"Application": "AGI", "Data": scene.url("wide"), "Codecs": "slin16", "Async": "true"}
        await ami.action("Originate", {"Channel": "Local/loop-wide@whole/n", **headers})
        for name in ("mixed", "sides"):
            told = await told_of(scene, name)
            samples = heard(told)
            left = samples if name == "mixed" else samples[:, 0]
            assert soundfile.info(told.file_path).samplerate == 16000
            assert share_of(left[16000:32000], 6000.0, 16000) > 0.9, name
            assert 2.0 < seconds(told) < 6.0


async def test_what_cannot_be_made_is_refused_before_the_call_is_touched(scene22: Scene) -> None:
    scene = scene22
    refused: dict[str, str] = {}
    wrong: dict[str, dict[str, Any]] = {
        "opus cannot be 11025": {"file_format": "opus", "rate": 11025},
        "mp3 cannot be 6000": {"file_format": "mp3", "rate": 6000},
        "oki has one channel": {"file_format": "oki", "recording_mode": "separate"},
        "ima has one channel": {"file_format": "ima", "recording_mode": "separate"},
        "no such format": {"file_format": "g729"},
        "gsm has one channel": {"file_format": "gsm", "recording_mode": "separate"},
        "gsm is 8000": {"file_format": "gsm", "rate": 11025},
        "no such rate": {"rate": 44100},
        "no such mode": {"recording_mode": "stereo"},
        "no such engine": {"engine": "tape"},
        "negative": {"max_bytes": -1},
        "no cipher": {"cipher": "secret"},
        "leaves": {"filename": "../x"},
        "other suffix": {"filename": "x.mp3"},
    }

    @scene.app.route("wrong")
    async def refuse(call: Any) -> None:
        for why, options in wrong.items():
            with pytest.raises(Error) as info:
                await call.WholeCallRecorder.start(**{"filename": "x", **options})
            refused[why] = str(info.value)
        assert call.WholeCallRecorder.state() == "IDLE"

    commanded = scene.asterisk.tail(100_000).count("MixMonitor")
    await scene.call("wrong", far_end="Local/mute@whole/n")
    await scene.until(lambda: len(refused) == len(wrong))
    assert "\n" not in "".join(refused.values())
    assert list(scene.spool.iterdir()) == in_directory(scene.directory) == []
    assert scene.asterisk.tail(100_000).count("MixMonitor") == commanded
    for size in (0, 15, 17, 33):
        with pytest.raises(CipherError, match="must have 16, 24 or 32 bytes"):
            AesCbcCipher(bytes(size), bytes(16))
        with pytest.raises(CipherError, match="must have"):
            AesGcmCipher(bytes(size))
    with pytest.raises(CipherError, match="must have 16 bytes"):
        AesCbcCipher(bytes(16), bytes(12))


async def test_both_sides_are_in_step_with_each_other(scene: Scene) -> None:
    """Left and right, added, are what Asterisk mixed itself, sample for sample; also where one was silent for long."""

    @scene.app.route("step")
    async def step(call: Any) -> None:
        for name, mode in (("mixed", "mixed"), ("separate", "separate")):
            options = {"file_format": "s16bit", "dtmf_elim": False, "recording_mode": mode}
            assert await call.recorder(name).start(name, **options)
        await asyncio.sleep(1.0)  # nothing is sent to him
        await call.stream_file("whole/blip")
        await asyncio.sleep(1.0)
        await call.stream_file("whole/blip")
        for name in ("separate", "mixed"):
            await call.recorder(name).stop()

    await scene.call("step", far_end="Local/say-late@whole/n")
    mixed, separate = heard(await told_of(scene, "mixed")), heard(await told_of(scene, "separate"))
    added = np.clip(separate.sum(axis=1), -1.0, 32767 / 32768)
    longest = max(range(-320, 321, 160), key=lambda shift: agreement(mixed, added, shift))
    assert abs(longest) <= 160  # 20 ms: the two MixMonitors began one after the other
    assert agreement(mixed, added, longest) > 0.98
    assert share_of(separate[:, 1], 600.0) > 0.9
    assert share_of(separate[:, 0], 600.0) < 0.4


def agreement(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], shift: int) -> float:
    """The share of samples that are the same when `b` begins so much later."""
    a, b = (a[-shift:], b) if shift < 0 else (a, b[shift:])
    count = min(len(a), len(b))
    return float((np.abs(a[:count] - b[:count]) < 2 / 32768).mean())


async def test_digits_are_removed_and_only_their_number_and_places_are_told(scene22: Scene) -> None:
    """multimon-ng hears them in one recording of the call, and nothing in the other."""
    scene = scene22

    @scene.app.route("digits")
    async def digits(call: Any) -> None:
        assert await call.recorder("kept").start("kept", file_format="s16bit", dtmf_elim=False)
        assert await call.recorder("removed").start("removed", file_format="s16bit")
        assert await call.recorder("sides").start("sides", file_format="s16bit", recording_mode="separate")
        prompt = asyncio.create_task(call.stream_file("whole/whisper"))
        await asyncio.sleep(3.5)
        for name in ("kept", "removed", "sides"):
            await scene.recorder.stop(scene.recorder.current((call.pbx.name, call.uniqueid, name)))
        prompt.cancel()

    call = await scene.call("digits", far_end="Local/say-digits@whole/n")
    told = {name: await told_of(scene, name) for name in ("kept", "removed", "sides")}
    await scene.hangup(call)
    sides = heard(told["sides"])
    assert multimon(heard(told["kept"])) == "159#"
    assert multimon(heard(told["removed"])) == multimon(sides[:, 0]) == ""
    for name in ("removed", "sides"):
        dtmf = told[name].extra["dtmf"]
        assert dtmf["removed"] == len(dtmf["spans"]) == 4
        assert all(0.1 <= end - start <= 0.2 for start, end in dtmf["spans"])
        assert "159" not in str(dtmf)
        first, last = dtmf["spans"][0][0], dtmf["spans"][-1][1]
        assert 0.6 < last - first < 1.3
    spoken = sides[round(first * 8000) : round(last * 8000), 1]
    assert np.sqrt((spoken**2).mean()) > 0.005  # whom he listened to was not silenced
    assert told["kept"].extra["dtmf"]["removed"] == 0


async def test_encrypted_files_open_with_the_key_and_the_clear_one_is_nowhere(scene22: Scene) -> None:
    scene = scene22
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    key, iv = os.urandom(32), os.urandom(16)
    ciphers: dict[str, Any] = {
        "cbc": AesCbcCipher(key, iv),
        "gcm": AesGcmCipher(key),
        "age": AgeCipher([str(identity.to_public())]),
    }

    @scene.app.route("secret")
    async def secret(call: Any) -> None:
        for name, cipher in ciphers.items():
            assert await call.recorder(name).start(name, file_format="s16bit", cipher=cipher)
        await call.exec("Wait", 2)

    await scene.call("secret", far_end="Local/loop-low@whole/n")
    told = {name: await told_of(scene, name) for name in ciphers}
    clear = {
        "cbc": ran(
            "openssl", "enc", "-d", "-aes-256-cbc", "-K", key.hex(), "-iv", iv.hex(), "-in", told["cbc"].file_path
        ),
        "gcm": b"".join(open_encrypted(told["gcm"].file_path, ciphers["gcm"])),
        "age": pyrage.decrypt(content(told["age"]), [identity]),
    }
    for name, data in clear.items():
        path = scene.folder / f"{name}-clear.wav"
        path.write_bytes(data)
        samples, rate = soundfile.read(path, dtype="float32")
        assert share_of(samples[rate // 2 : rate], LOW, rate) > 0.9
        assert data not in content(told[name])
        assert told[name].extra["encryption"] == {"cbc": "aes-256-cbc", "gcm": "aes-256-gcm", "age": "age"}[name]
        assert told[name].extra["bytes"] == bytes_of(told[name])
    assert key.hex() not in str(told)
    assert {p.name for p in in_directory(scene.directory)} == {"cbc.wav", "gcm.wav", "age.wav"}
    await scene.until(lambda: not list(scene.spool.iterdir()))
    ledger = b"".join(path.read_bytes() for path in scene.folder.glob("ledger.db*"))
    assert key not in ledger
    assert key.hex().encode() not in ledger
