"""File formats with their rates and abilities, checked before a call is recorded.

Source: the seed (alaw, ulaw, oki, ima, s16bit, u8bit at 6000, 8000, 11000, 11025 Hz); gsm as the seed of
the sinks names it: frames without a header, as Asterisk writes them. flac, opus, mp3 and 16 kHz go beyond the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastagi.domain.numbers import shown
from fastagi.errors import BadArgument

SEED_RATES = (6000, 8000, 11000, 11025)


@dataclass(frozen=True, slots=True)
class BitRates:
    """Bits a second of one codec at one rate.

    :param usual: default of each channel
    :param least: smallest of each channel; :param most: largest of the file
    :param only: possible values for a file, where the codec has not all in between
    """

    usual: int
    least: int
    most: int
    only: tuple[int, ...] = ()

    def refusal(self, bit_rate: int, channels: int) -> str:
        """Return the allowed values as text if `bit_rate` is wrong, else an empty string."""
        if self.only:
            return "" if bit_rate in self.only else f"one of {', '.join(map(str, self.only))}"
        least = self.least * channels
        return "" if least <= bit_rate <= self.most else f"{least} to {self.most}"


_MPEG_2 = tuple(1000 * k for k in (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160))
_MPEG_2_5 = _MPEG_2[:8]


@dataclass(frozen=True, slots=True)
class Format:
    """Format of a finished file: one `file_format`.

    :param name: name in settings and calls
    :param container: wav, flac, opus, mp3 or gsm; also RecordingMetadata.format
    :param rates: sample rates in Hz it can be asked for
    :param channels: the most channels it can hold
    :param bit_rates: rate in Hz -> bits a second that may be asked for; empty where the codec has one for each rate
    """

    name: str
    container: str
    rates: tuple[int, ...]
    channels: int
    bit_rates: dict[int, BitRates] = field(default_factory=dict)

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
        Format(
            "opus",
            "opus",
            (8000, 16000),
            2,
            {8000: BitRates(16_000, 6_000, 128_000), 16000: BitRates(24_000, 6_000, 128_000)},
        ),
        Format(
            "mp3",
            "mp3",
            (8000, 11025, 16000),
            2,
            {
                8000: BitRates(24_000, 8_000, 64_000, _MPEG_2_5),
                11025: BitRates(24_000, 8_000, 64_000, _MPEG_2_5),
                16000: BitRates(32_000, 8_000, 160_000, _MPEG_2),
            },
        ),
        Format("gsm", "gsm", (8000,), 1),
    )
}

MODES = ("mixed", "separate")
ENGINES = ("mixmonitor", "monitor")


def format_named(name: str) -> Format:
    """Return the format of a name.

    :raises BadArgument: there is no such format
    """
    try:
        return FORMATS[name]
    except (KeyError, TypeError):
        raise BadArgument(f"file_format={name!r} is not known: use one of {', '.join(FORMATS)}") from None


def check_format(name: str, rate: int, mode: str) -> Format:
    """Return the format after checking that it can be made at this rate and in this mode.

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


def bit_rate_for(name: str, rate: int, mode: str, bit_rate: int = 0) -> int:
    """Return the bits a second of a file that passed `check_format`; 0 for a codec with a fixed rate.

    :param bit_rate: wanted bit rate; 0 takes the usual one
    :raises BadArgument: the codec does not have it
    """
    form = format_named(name)
    if isinstance(bit_rate, bool) or not isinstance(bit_rate, int):
        raise BadArgument(f"bit_rate={shown(bit_rate)} must be a whole number of bits a second, or 0")
    if not form.bit_rates:
        if bit_rate:
            good = " and ".join(f.name for f in FORMATS.values() if f.bit_rates)
            raise BadArgument(f"bit_rate={bit_rate} is nothing that {name} has: leave it out, or record {good}")
        return 0
    allowed = form.bit_rates[rate]
    channels = 2 if mode == "separate" else 1
    if bit_rate == 0:
        return allowed.usual * channels
    right = allowed.refusal(bit_rate, channels)
    if right:
        raise BadArgument(
            f"bit_rate={shown(bit_rate)} is not possible as {name} at {rate} Hz, {mode}: use {right} bit/s"
        )
    return bit_rate
