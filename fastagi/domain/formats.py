"""File formats with their rates and abilities, checked before a call is recorded.

Source: the seed (alaw, ulaw, oki, ima, s16bit, u8bit at 6000, 8000, 11000, 11025 Hz); gsm as the seed of
the sinks names it: frames without a header, as Asterisk writes them. flac, opus, mp3 and 16 kHz go beyond the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fastagi.domain.numbers import shown
from fastagi.errors import BadArgument

SEED_RATES = (6000, 8000, 11000, 11025)
_ALL_RATES = (*SEED_RATES, 16000)

MIN_BYTES = 400
"""An IMA file of one block is 60 + 256 bytes, GCM adds up to 50. Of the codecs with smaller steps less would hold a few
samples; of A-law this holds 43 ms."""


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
class Layout:
    """Bytes of one codec in its file, where the size is arithmetic.

    :param header: bytes before the audio; 0 where the file is no WAV, which is not padded to an even length
    :param block_bytes: the smallest step, of one channel; :param block_frames: samples per channel in a step
    """

    header: int
    block_bytes: int
    block_frames: int

    def pad(self, data: int) -> int:
        """Return the bytes that RIFF pads `data` bytes of audio with: one after an odd length."""
        return data & 1 if self.header else 0


@dataclass(frozen=True, slots=True)
class Format:
    """Format of a finished file: one row for settings, limits, encoder, reader, sinks, web and guide.

    :param name: name in settings and calls
    :param container: wav, flac, opus, mp3 or gsm; also RecordingMetadata.format, and the suffix
    :param content: description of the content, for the guide
    :param media_type: of a copy in an object store or a vCon; :param played_as: for browsers, where another one
    :param sndfile: libsndfile's names of container and codec. `fastagi.audio.codecs` has what it cannot encode
    :param rates: sample rates in Hz it can be asked for
    :param channels: the most channels it can hold
    :param layouts: lowest rate in Hz -> bytes of the file; empty where the size depends on the audio
    :param empty_bytes: room for a file without a sample, where the size depends on the audio
    :param held_back_seconds: audio that the codec may still hold when the size is read, likewise
    :param least_bytes: the smallest `max_bytes` that leaves room for sound that can be heard
    :param bit_rates: rate in Hz -> bits a second that may be asked for; empty where the codec has one for each rate
    """

    name: str
    container: str
    content: str
    media_type: str
    sndfile: tuple[str, str]
    rates: tuple[int, ...]
    channels: int
    layouts: dict[int, Layout] = field(default_factory=dict)
    empty_bytes: int = 0
    held_back_seconds: float = 0.0
    least_bytes: int = MIN_BYTES
    bit_rates: dict[int, BitRates] = field(default_factory=dict)
    played_as: str = ""

    @property
    def suffix(self) -> str:
        return "." + self.container

    @property
    def headerless(self) -> bool:
        """Whether only the suffix tells what is in a file."""
        return self.sndfile[0] == "RAW" and all(layout.header == 0 for layout in self.layouts.values())

    def layout(self, rate: int, channels: int) -> Layout | None:
        """Return the bytes of a file, or None when its size depends on the audio."""
        found = None
        for least, layout in self.layouts.items():
            if rate >= least:
                found = layout
        if found is None or channels == 1:
            return found
        return replace(found, block_bytes=found.block_bytes * channels)


def _wav(name: str, content: str, codec: str, channels: int, layout: Layout, *more: tuple[int, Layout]) -> Format:
    """Return the row of a codec in WAV.

    :param codec: libsndfile's name; one without a container there is written behind a header of this project
    :param more: layouts from a rate on
    """
    container = "RAW" if codec == "VOX_ADPCM" else "WAV"
    layouts = {0: layout, **dict(more)}
    return Format(
        name, "wav", content, "audio/x-wav", (container, codec), _ALL_RATES, channels, layouts, played_as="audio/wav"
    )


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        _wav("alaw", "G.711 in WAV", "ALAW", 2, Layout(58, 1, 1)),
        _wav("ulaw", "G.711 in WAV", "ULAW", 2, Layout(58, 1, 1)),
        _wav("s16bit", "PCM in WAV", "PCM_16", 2, Layout(44, 2, 1)),
        _wav("u8bit", "PCM in WAV", "PCM_U8", 2, Layout(44, 1, 1)),
        _wav("oki", "ADPCM in WAV", "VOX_ADPCM", 1, Layout(60, 1, 2)),
        _wav("ima", "ADPCM in WAV", "IMA_ADPCM", 1, Layout(60, 256, 505), (12_000, Layout(60, 512, 1017))),
        Format(
            "flac",
            "flac",
            "FLAC",
            "audio/flac",
            ("FLAC", "PCM_16"),
            _ALL_RATES,
            2,
            empty_bytes=200,
            held_back_seconds=0.6,  # a block
        ),
        Format(
            "opus",
            "opus",
            "Ogg Opus",
            "audio/ogg",
            ("OGG", "OPUS"),
            (8000, 16000),
            2,
            empty_bytes=1000,
            held_back_seconds=1.2,  # libsndfile's Ogg page
            least_bytes=4000,  # a file without a sample may have 869 bytes, and its first half second comes at once
            bit_rates={8000: BitRates(16_000, 6_000, 128_000), 16000: BitRates(24_000, 6_000, 128_000)},
        ),
        Format(
            "mp3",
            "mp3",
            "MP3",
            "audio/mpeg",
            ("MP3", "MPEG_LAYER_III"),
            (8000, 11025, 16000),
            2,
            empty_bytes=600,
            held_back_seconds=0.5,  # look-ahead
            least_bytes=4000,  # a file without a sample may have 504 bytes, and its first half second comes at once
            bit_rates={
                8000: BitRates(24_000, 8_000, 64_000, _MPEG_2_5),
                11025: BitRates(24_000, 8_000, 64_000, _MPEG_2_5),
                16000: BitRates(32_000, 8_000, 160_000, _MPEG_2),
            },
        ),
        Format(
            "gsm",
            "gsm",
            "GSM 06.10 as Asterisk writes it: frames of 33 bytes without a header, `.gsm`",
            "audio/x-gsm",
            ("RAW", "GSM610"),
            (8000,),
            1,
            {0: Layout(0, 33, 160)},
        ),
    )
}

MODES = ("mixed", "separate")
ENGINES = ("mixmonitor", "monitor")


UNKNOWN_MEDIA_TYPE = "application/octet-stream"


def media_type_of(container: str) -> str:
    """Return the media type of a file in that container, for a label on a copy of it."""
    return next((f.media_type for f in FORMATS.values() if f.container == container), UNKNOWN_MEDIA_TYPE)


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
