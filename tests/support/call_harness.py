"""Shared by the tests of whole calls: far ends that say what a test wants, and the check of finished files.

`Local/say-NAME@whole/n` answers and says the sound NAME once, `loop-NAME` for ever, `mute` sends no frame at all.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from fastagi import RecordingMetadata
from fastagi.testing import AsteriskServer
from fastagi.testing.sound import (
    Samples,
    digit_samples,
    rms,
    save,
    silence_samples,
    speech_samples,
    tone_samples,
)
from support.recorder_harness import Scene, recording_scene

DIALPLAN = """
[whole]
exten => _say-.,1,Answer()
 same => n,Playback(whole/${EXTEN:4})
 same => n,Wait(600)
exten => _loop-.,1,Answer()
 same => n(again),Playback(whole/${EXTEN:5})
 same => n,Goto(again)
exten => mute,1,Answer()
 same => n,Wait(600)
[from-sipp]
exten => phone,1,Answer()
 same => n,AGI(${SERVER}/phone)
 same => n,Dial(PJSIP/agent1,20)
exten => third,1,Goto(whole,loop-third,1)
; a phone that asks for the route NAME, and stays on the line
exten => _ask-.,1,Answer()
 same => n,AGI(${SERVER}/${EXTEN:4})
 same => n,Wait(600)
; the same, and something is played to him
exten => _play-.,1,Answer()
 same => n,AGI(${SERVER}/${EXTEN:5})
 same => n,Playback(whole/longer-prompt)
 same => n,Wait(600)
; the same, and digits are awaited, without and with a prompt
exten => _read-.,1,Answer()
 same => n,AGI(${SERVER}/${EXTEN:5})
 same => n,Read(DIGITS,,1,,1,100)
exten => _dtmf-.,1,Answer()
 same => n,AGI(${SERVER}/${EXTEN:5})
 same => n,Read(DIGITS,whole/longer-prompt,1,,1,100)
; a callee on whose leg the route ${ROUTE2} is asked when he answers
[whole-callee]
exten => s,1,AGI(${SERVER}/${ROUTE2})
 same => n,Return()
[whole]
; runs the route ${ROUTE} of the server ${SERVER}, then waits or does what ${THEN} says
exten => listening,1,Answer()
 same => n,AGI(${SERVER}/listener)
; as dialplan/record.conf has it, hangup handler and all
exten => handled,1,Answer()
 same => n,Set(__FASTAGI=${SERVER})
 same => n,Gosub(sub-record-whole-call,s,1(handled,recording_mode=separate,file_format=s16bit,dtmf_elim=no))
 same => n,Dial(Local/loop-high@whole/n,,tT)
exten => 33,1,Goto(loop-third,1)
exten => conference,1,Answer()
 same => n,ConfBridge(whole)
exten => queued,1,Answer()
 same => n,Queue(whole)
exten => pickup,1,Answer()
 same => n,Pickup(ringing@whole)
exten => ringing,1,Ringing()
 same => n,Wait(600)
exten => asked,1,Answer()
 same => n,ExecIf($[${LEN(${ROUTE})} > 0]?AGI(${SERVER}/${ROUTE}))
 same => n,ExecIf($[${LEN(${THEN})} > 0]?${THEN}:NoOp())
 same => n,Wait(600)
"""

SHIPPED = Path(__file__).parents[2] / "dialplan" / "record.conf"

EXTRA_FILES: dict[str, str] = {
    "custom/queues.conf": "[whole]\nstrategy = ringall\njoinempty = yes\nmember => Local/loop-high@whole/n\n"
}
"""Configuration beyond the shipped one."""

SPEECH_SECONDS = 2.0


def lay_sounds(asterisk: AsteriskServer) -> None:
    """Speech, tones, digits and silence as prompts of this Asterisk."""
    quiet = silence_samples
    sounds = {
        # two seconds of speech and then frames of silence
        "hello": np.concatenate([speech_samples(SPEECH_SECONDS, 3), quiet(30)]),
        "late": np.concatenate([quiet(1.5), speech_samples(SPEECH_SECONDS, 3), quiet(30)]),
        "quiet": quiet(60),
        "talk": speech_samples(30, 5),
        "other": speech_samples(30, 8),
        "whisper": speech_samples(30, 8, level=0.02),
        "low": tone_samples(60, 440),
        "high": tone_samples(60, 1000),
        "third": tone_samples(60, 1700),
        "short-prompt": tone_samples(3, 600),
        "blip": tone_samples(0.8, 600),
        "longer-prompt": tone_samples(4, 600),
        "digits": np.concatenate(
            [tone_samples(1, 440, level=0.02), digit_samples("159#", on=0.12, off=0.12), quiet(30)]
        ),
    }
    for name, samples in sounds.items():
        save(asterisk.sounds / "whole" / f"{name}.wav", samples)


def heard(told: RecordingMetadata) -> Samples:
    """The finished file's samples: one column, or two."""
    data, _ = soundfile.read(told.file_path, dtype="float32")
    return np.asarray(data, np.float32)


def seconds(told: RecordingMetadata) -> float:
    """The finished file's length as libsndfile sees it."""
    return float(soundfile.info(told.file_path).duration)


def share_of(samples: Samples, hertz: float, rate: int = 8000) -> float:
    """How much of the energy is in that tone (0 to 1)."""
    if rms(samples) < 1e-4:
        return 0.0
    window = np.hanning(len(samples))
    spectrum = np.abs(np.fft.rfft(samples * window)) ** 2
    at = np.fft.rfftfreq(len(samples), 1 / rate)
    return float(spectrum[np.abs(at - hertz) < 25].sum() / spectrum.sum())


def tones(samples: Samples, *hertz: float, rate: int = 8000) -> list[tuple[float, ...]]:
    """Which of these tones are heard in each quarter second."""
    size = rate // 4
    parts = [samples[i : i + size] for i in range(0, len(samples) - size + 1, size)]
    return [tuple(h for h in hertz if share_of(part, h, rate) > 0.15) for part in parts]


def order(samples: Samples, *hertz: float) -> list[float]:
    """The tones in the order in which they are heard, each once per stretch."""
    found: list[float] = []
    for here in tones(samples, *hertz):
        if len(here) == 1 and (not found or found[-1] != here[0]):
            found.append(here[0])
    return found


def span_of(samples: Samples, hertz: float, rate: int = 8000) -> tuple[float, float]:
    """First and last moment at which that tone is heard, to 10 ms; (-1, -1) when it is not."""
    size = rate // 50
    step = rate // 100
    at = [i / rate for i in range(0, len(samples) - size, step) if share_of(samples[i : i + size], hertz, rate) > 0.5]
    return (at[0], at[-1] + 0.02) if at else (-1.0, -1.0)


def bytes_of(told: RecordingMetadata) -> int:
    """Size of the finished file."""
    return Path(told.file_path).stat().st_size


def last_sound(samples: Samples, rate: int = 8000, dbfs: float = -48.0) -> float:
    """End of the last 10 ms in which anything is heard, in seconds."""
    size = rate // 100
    frames = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(axis=1)) >= 10 ** (dbfs / 20))
    return float((loud[-1] + 1) * size / rate) if len(loud) else 0.0


def multimon(samples: Samples) -> str:
    """The digits that multimon-ng hears."""
    raw = subprocess.run(
        ["sox", "-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-c", "1", "-", "-r", "22050", "-t", "raw", "-"],
        input=(samples * 32767).astype(np.int16).tobytes(),
        capture_output=True,
        check=True,
    ).stdout
    out = subprocess.run(
        ["multimon-ng", "-q", "-t", "raw", "-a", "DTMF", "-"], input=raw, capture_output=True, check=True
    ).stdout.decode()
    return "".join(line.split()[-1] for line in out.splitlines() if line.startswith("DTMF"))


@asynccontextmanager
async def whole_scene(asterisk: AsteriskServer, folder: Path, **sections: dict[str, Any]) -> AsyncIterator[Scene]:
    """A recording scene whose Asterisk has the sounds."""
    async with recording_scene(asterisk, folder, **sections) as scene:
        yield scene


async def ask(scene: Scene, route: str, far_end: str, *, then: str = "", **options: Any) -> Any:
    """A call whose dialplan asks `route` and then lives on by itself: the session ends, the call does not."""
    variables = {"__SERVER": scene.url("").rstrip("/"), "ROUTE": route, "THEN": then, **options.pop("variables", {})}
    return await scene.asterisk.originate(far_end, context="whole", exten="asked", variables=variables, **options)


async def told_of(scene: Scene, name: str, patience: float = 40.0) -> RecordingMetadata:
    """What the sink was told of the recording with that name."""
    found: list[RecordingMetadata] = []

    def there() -> bool:
        found[:] = [m for m in scene.sink.got if m.name == name]
        return bool(found)

    await scene.until(there, patience)
    return found[0]
