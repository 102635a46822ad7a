"""Parameters of a recording: every parameter of the seed's record() and start().

All are checked here, before any command goes to Asterisk, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastagi.domain.formats import ENGINES, Format, bit_rate_for, check_format
from fastagi.domain.numbers import LARGEST, check_seconds, shown
from fastagi.errors import BadArgument

PAUSE_MODES = ("silence", "cut")


@dataclass(frozen=True, slots=True)
class RecordingSpec:
    """Parameters of one recording. Names and defaults are the seed's; those below the gap go beyond it.

    :param file_format: codec of the finished file (`fastagi.domain.formats.FORMATS`)
    :param rate: Hz
    :param seconds_timeout: stop after so many seconds, cause TIMEOUT; None for never
    :param max_bytes: the finished file's largest size, header and encryption included, cause SIZE; 0 for no limit
    :param milliseconds_max_silence: stop after so much silence, cause SILENCE; 0 for no limit
    :param milliseconds_initial_silence: stop when no sound came in that time, cause SILENCE; audio before the first
        sound is cut; 0 for no limit
    :param dtmf_elim: remove in-band digits from both legs
    :param recording_mode: ``mixed``, or ``separate`` (left received, right sent; size and silence limits are ignored)
    :param encryption: name of the cipher's scheme, empty for none (the key is not here)

    :param bit_rate: bits a second of an opus or mp3 file; 0 for the usual one (`fastagi.domain.formats.BitRates`)
    :param engine: ``mixmonitor`` or ``monitor`` (Asterisk up to 20)
    :param pause_mode: trace of a pause in the file: ``silence``, or ``cut`` for none
    :param beep_seconds: interval of beeps to the caller; 0 for none
    :param beep_start: beep when the recording starts
    :param beep_stop: beep when the recording stops
    :param follow: when the recorded leg leaves a call that goes on (a transfer), record the leg that stays
    """

    file_format: str = "alaw"
    rate: int = 8000
    seconds_timeout: float | None = None
    max_bytes: int = 0
    milliseconds_max_silence: int = 0
    milliseconds_initial_silence: int = 0
    dtmf_elim: bool = True
    recording_mode: str = "mixed"
    encryption: str = ""

    bit_rate: int = 0
    engine: str = "mixmonitor"
    pause_mode: str = "silence"
    beep_seconds: int = 0
    beep_start: bool = False
    beep_stop: bool = False
    follow: bool = True

    def __post_init__(self) -> None:
        check_format(self.file_format, self.rate, self.recording_mode)
        bit_rate_for(self.file_format, self.rate, self.recording_mode, self.bit_rate)
        for name in ("max_bytes", "milliseconds_max_silence", "milliseconds_initial_silence", "beep_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
                raise BadArgument(f"{name}={shown(value)} must be a whole number, 0 (off) or more")
        least = self.form.least_bytes
        if self.max_bytes and self.max_bytes < least and self.recording_mode == "mixed":
            raise BadArgument(
                f"max_bytes={self.max_bytes} leaves no room for sound that could be heard: use {least} or more"
            )
        check_seconds("seconds_timeout", self.seconds_timeout, LONGEST_SECONDS, none="for no timeout")
        for name in ("dtmf_elim", "beep_start", "beep_stop", "follow"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise BadArgument(f"{name}={value!r} must be True or False")
        if self.engine not in ENGINES:
            raise BadArgument(f"engine={self.engine!r} is not known: use mixmonitor or monitor")
        if self.pause_mode not in PAUSE_MODES:
            raise BadArgument(f"pause_mode={self.pause_mode!r} is not known: use silence or cut")

    @property
    def form(self) -> Format:
        return check_format(self.file_format, self.rate, self.recording_mode)

    @property
    def channels(self) -> int:
        return 2 if self.recording_mode == "separate" else 1

    @property
    def wideband(self) -> bool:
        """True when the finished file is above the telephone band: Asterisk then records 16 kHz (.wav16)."""
        return self.rate > 11025

    @property
    def raw_rate(self) -> int:
        """Sample rate of Asterisk's files, Hz."""
        return 16000 if self.wideband else 8000

    @property
    def needs_legs(self) -> bool:
        """True when each side is recorded by itself: to keep both apart, or to remove digits before mixing."""
        return self.recording_mode == "separate" or self.dtmf_elim

    @property
    def byte_limit(self) -> int:
        """max_bytes where it applies, 0 for none: `separate` ignores it, as the seed says."""
        return 0 if self.recording_mode == "separate" else self.max_bytes

    @property
    def silence_limits(self) -> tuple[int, int]:
        """Silence limits (initial, max) in milliseconds where they apply; 0 for none."""
        if self.recording_mode == "separate":
            return (0, 0)
        return (self.milliseconds_initial_silence, self.milliseconds_max_silence)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def with_defaults(defaults: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given parameters, and the defaults of all others.

    A default `bit_rate` belongs to the default codec: it is left out where a recording is of another one.
    """
    merged = {**defaults, **asked}
    if "bit_rate" in asked or not defaults.get("bit_rate"):
        return merged
    fields = RecordingSpec.__dataclass_fields__
    for name in ("file_format", "rate", "recording_mode"):
        usual = fields[name].default
        if merged.get(name, usual) != defaults.get(name, usual):
            del merged["bit_rate"]
            break
    return merged


LONGEST_SECONDS = 366 * 86_400
"""Longest time limit in seconds: a year. No call lasts as long, and a clock of floats can wait for it."""
