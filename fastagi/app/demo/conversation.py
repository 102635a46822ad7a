"""The demo's call: two people, in Asterisk's own English prompts, or in made-up voices without them."""

from __future__ import annotations

from pathlib import Path

from fastagi.testing import sound

CALLER = ("hello-world", "auth-thankyou")
CALLEE = ("tt-weasels", "vm-goodbye")

CONTEXT = "fastagi-demo"

DIALPLAN = """
[fastagi-demo]
; the caller: the AGI line is all that a dialplan of yours needs
exten => s,1,Answer()
 same => n,AGI(${{FASTAGI}}/record/start,filename={name})
 same => n,Playback(quiet-300&{caller[0]}&quiet-3500&{caller[1]}&quiet-9000)
; the other side, who hangs up in the end
exten => callee,1,Answer()
 same => n,Playback(quiet-2200&{callee[0]}&quiet-1500&{callee[1]}&quiet-500)
 same => n,Hangup()
"""

QUIET_MS = (300, 500, 1500, 2200, 3500, 9000)
"""Pauses are played, not waited: a telephone sends frames while a person is silent, and the file is as long as the
call.
"""

VOICE_SECONDS = 2.0

WINDOW_SECONDS = 0.4
"""Seconds of one comparison; the shortest prompt has two such windows."""


def dialplan(name: str) -> str:
    """Return the text of extensions.conf.

    :param name: the recording's file name; letters, digits, - and _ only
    """
    return DIALPLAN.format(name=name, caller=CALLER, callee=CALLEE)


def prompts(sounds: Path) -> dict[str, sound.Samples]:
    """Return the sound of each prompt, by name; a prompt that this Asterisk does not have is made.

    :param sounds: the folder ``sounds`` of that Asterisk; pauses, and prompts that it lacks, are written there
    """
    for milliseconds in QUIET_MS:
        sound.save(sounds / f"quiet-{milliseconds}.wav", sound.silence_samples(milliseconds / 1000))
    said: dict[str, sound.Samples] = {}
    for number, name in enumerate((*CALLER, *CALLEE)):
        there = next((p for s in ("gsm", "wav") if (p := sounds / "en" / f"{name}.{s}").is_file()), None)
        said[name] = sound.load(there or sound.speech(sounds / f"{name}.wav", VOICE_SECONDS, seed=number + 1))
    return said


def share_heard(file: Path, said: dict[str, sound.Samples]) -> float:
    """Return the share of the spoken prompts that the recording contains, 0 to 1."""
    heard = sound.load(file)
    total = sum(len(part) for part in said.values())
    found = sum(sound.share_found(heard, part, window=WINDOW_SECONDS) * len(part) for part in said.values())
    return found / total if total else 1.0
