"""The file formats, their rates and what each can do: asked before a call is recorded, never after.

Source: the seed (alaw, ulaw, oki, ima, s16bit, u8bit at 6000, 8000, 11000, 11025 Hz); gsm as the seed of
the sinks names it: frames without a header, as Asterisk writes them; flac, opus, mp3 and 16 kHz go beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastagi.domain.numbers import shown
from fastagi.errors import BadArgument

SEED_RATES = (6000, 8000, 11000, 11025)


@dataclass(frozen=True, slots=True)
class Format:
    """One `file_format`.

    :param name: the name users write
    :param container: wav, flac, opus, mp3 or gsm; also RecordingMetadata.format
    :param rates: sample rates in Hz it can be asked for
    :param channels: the most channels it can hold
    """

    name: str
    container: str
    rates: tuple[int, ...]
    channels: int

    @property
    def suffix(self) -> str:
        return "." + self.container


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("alaw", "wav", (*SEED_RATES, 16000), 2),
        Format("ulaw", "wav", (*SEED_RATES, 16000), 2),
        Format("s16bit", "wav", (*SEED_RATES, 16000), 2),
        Format("u8bit", "wav", (*SEED_RATES, 16000), 2),
        Format("oki", "wav", (*SEED_RATES, 16000), 1),
        Format("ima", "wav", (*SEED_RATES, 16000), 1),
        Format("flac", "flac", (*SEED_RATES, 16000), 2),
        Format("opus", "opus", (8000, 16000), 2),
        Format("mp3", "mp3", (8000, 11025, 16000), 2),
        Format("gsm", "gsm", (8000,), 1),
    )
}

MODES = ("mixed", "separate")
ENGINES = ("mixmonitor", "monitor")


def format_named(name: str) -> Format:
    """The format of that name.

    :raises BadArgument: there is none
    """
    try:
        return FORMATS[name]
    except (KeyError, TypeError):
        raise BadArgument(f"file_format={name!r} is not known: use one of {', '.join(FORMATS)}") from None


def check_format(name: str, rate: int, mode: str) -> Format:
    """The format, once it is sure that it can be made at this rate and in this mode.

    :param rate: Hz
    :param mode: ``mixed`` (one channel) or ``separate`` (two)
    :raises BadArgument: unknown format, rate or mode, or a combination that the codec cannot do
    """
    form = format_named(name)
    if mode not in MODES:
        raise BadArgument(f"recording_mode={mode!r} is not known: use mixed or separate")
    if isinstance(rate, bool) or not isinstance(rate, int) or rate not in form.rates:
        allowed = ", ".join(str(r) for r in form.rates)
        raise BadArgument(f"rate={shown(rate)} cannot be recorded as {name}: use one of {allowed}")
    if mode == "separate" and form.channels < 2:
        good = ", ".join(f.name for f in FORMATS.values() if f.channels > 1)
        raise BadArgument(f"file_format={name!r} has one channel only; recording_mode='separate' takes one of {good}")
    return form
