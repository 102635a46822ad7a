"""Rendering of a recording's raw files into one finished file: the order of the steps only.

There are two passes. The first analyses: it mends headers, finds the digits in each leg, measures the legs' levels and
judges silence on the mixed recording as Asterisk wrote it (digits are sound there, as they were for the level monitor).
The second writes: digits out, legs mixed or side by side, cut, resampled, encoded, encrypted, synced, renamed.
Rendering blocks and streams in blocks of 16 s, for a worker thread. numpy, soxr and libsndfile release the GIL in every
step that takes time.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastagi.audio import wavfile
from fastagi.audio.dtmf import DtmfScanner
from fastagi.audio.elimination import spans
from fastagi.audio.encoder import Encoder
from fastagi.audio.finalfile import FinalFile
from fastagi.audio.finalmix import Blocks, as_mixed_by_asterisk, limited, raw_mix, separate
from fastagi.audio.levels import LevelFacts, Levels, one_sided
from fastagi.audio.limiter import FULL_SCALE
from fastagi.audio.plan import MOST_SPANS, Rendered, RenderPlan, ranges, without
from fastagi.audio.resample import Resampler, resampled_length
from fastagi.audio.silence import SilenceWatch
from fastagi.audio.sizes import max_frames
from fastagi.audio.timeline import Timeline, lay_out
from fastagi.domain.formats import format_named
from fastagi.errors import AudioError

Samples = NDArray[np.int16]
Spans = list[tuple[int, int]]

_NO_PEAKS = np.zeros(0, np.bool_)

_WATCHED_FRAMES = 1 << 11
"""Frames between two looks at the size of a FLAC, Opus or MP3 file: 0.26 s."""

_TRIES = 12
"""Most attempts to meet a size that cannot be computed ahead."""

_WELL_USED = 0.95
"""Share of `max_bytes` from which a file stopped by that limit is long enough."""

_TARGET = 0.985
"""Share of `max_bytes` that a further attempt aims at."""


@dataclass(slots=True)
class _Findings:
    """Results of the first pass, in frames of the time line."""

    keep: Spans
    limit: str = ""
    no_sound: bool = False
    left_digits: Spans = field(default_factory=list)
    right_digits: Spans = field(default_factory=list)
    digits: int = 0
    received: LevelFacts | None = None
    sent: LevelFacts | None = None
    own_mix: bool = False
    """True when the legs are mixed here: no mixed file, digits to remove, or legs too loud for Asterisk's sum."""


@dataclass(slots=True)
class _Heard:
    """Levels that the second pass measured in the audio it wrote."""

    level: Levels
    clipped: int = 0

    def feed(self, block: Samples, peaks: NDArray[np.bool_]) -> None:
        self.level.feed(block)
        self.clipped += int(np.count_nonzero(peaks))


def render(plan: RenderPlan) -> Rendered:
    """Make the finished file. Idempotent: the raw files stay, and a second call replaces the file by the same one.

    :raises AudioError: the raw files are missing or are no audio, or the target cannot be written
    :raises DiskFull: no room; nothing is left behind and the raw files are kept
    :raises CipherError: the cipher failed
    """
    line = lay_out(plan)
    found = _look(plan, line)
    kept = sum(end - start for start, end in found.keep)
    heard = _Heard(Levels(line.rate, plan.silence_dbfs))
    with FinalFile(plan.target, plan.cipher, plan.permit) as final:
        raw = _as_it_is(plan, line, found)
        if raw:
            for block, peaks in as_mixed_by_asterisk(line, found.keep):
                heard.feed(block, peaks)
            final.take(raw)
            frames, size, full = kept, final.seal(), False
        else:
            heard, frames, size, full = _make(plan, line, found, kept, final)
        digest = final.commit()
    digit_spans = sorted((*found.left_digits, *found.right_digits))[:MOST_SPANS]
    return Rendered(
        audio_seconds=round(frames / plan.rate, 3),
        frames=frames,
        bytes=size,
        sha256=digest,
        level=heard.level.facts(),
        clipped=heard.clipped,
        limited=bool(heard.clipped and plan.mode == "mixed" and found.own_mix),
        limit="SIZE" if full else found.limit,
        no_sound=found.no_sound,
        salvaged=line.salvaged,
        digits=found.digits,
        digit_spans=tuple((round(a / line.rate, 3), round(b / line.rate, 3)) for a, b in digit_spans),
        received=found.received,
        sent=found.sent,
        one_sided=bool(found.received and found.sent and one_sided(found.received, found.sent)),
        copied=bool(raw),
        gaps=_in_the_file(line, found.keep, frames / plan.rate),
        warnings=tuple(line.warnings),
    )


def _in_the_file(line: Timeline, keep: Spans, seconds: float) -> tuple[tuple[float, float], ...]:
    """Return the gaps between segments as (start, end) in seconds of the finished file."""

    def place(frame: int) -> float:
        kept = sum(max(0, min(frame, end) - start) for start, end in keep)
        return round(min(kept / line.rate, seconds), 3)

    spans_found = ((place(start), place(end)) for start, end in line.gaps)
    return tuple((start, end) for start, end in spans_found if end > start)


def _look(plan: RenderPlan, line: Timeline) -> _Findings:
    """Run the first pass: find where the recording begins and ends, and examine its legs."""
    end = line.frames
    if plan.max_seconds is not None:
        end = min(end, round(plan.max_seconds * line.rate))
    holes = ranges(plan.cuts, line.rate, end)
    found = _Findings(without(0, end, holes), own_mix=line.own_mix)
    initial_ms, max_ms = plan.silence_limits
    if initial_ms or max_ms:
        gaps = ((start / line.rate, stop / line.rate) for start, stop in line.gaps)
        unjudged = ranges((*plan.cuts, *plan.pauses, *gaps), line.rate, end)
        watch = SilenceWatch(line.rate, plan.silence_dbfs, initial_ms, max_ms)
        _judge(watch, line, end, unjudged)
        begin, limit = 0, watch.ends_at() if plan.silent else watch.trigger
        if limit is not None:  # beyond the end there is silence, as there was on the line where no frames came
            end, found.limit = limit if plan.silent else min(end, limit), "SILENCE"
        if initial_ms:
            found.no_sound = watch.first_sound is None
            begin = end if watch.first_sound is None else watch.first_sound
        found.keep = without(begin, end, holes)
    if not (line.legs or plan.dtmf_elim):
        return found
    levels = (Levels(line.rate, plan.silence_dbfs), Levels(line.rate, plan.silence_dbfs))
    scanners = (DtmfScanner(line.rate), DtmfScanner(line.rate)) if plan.dtmf_elim else None
    for index, role in enumerate(("left", "right")):
        if not line.parts[role]:
            continue
        for _, block in line.blocks(role, [(0, end)]):
            levels[index].feed(block)
            if scanners:
                scanners[index].feed(block)
    if line.legs:
        found.received, found.sent = levels[0].facts(), levels[1].facts()
        found.own_mix = found.own_mix or levels[0].peak + levels[1].peak > FULL_SCALE
    if scanners:
        for scanner, target in zip(scanners, (found.left_digits, found.right_digits), strict=True):
            digits = [d for d in scanner.finish() if any(d.start < b and d.end > a for a, b in found.keep)]
            found.digits += len(digits)
            target += spans(digits)
        found.own_mix = found.own_mix or found.digits > 0
    return found


def _judge(watch: SilenceWatch, line: Timeline, end: int, unjudged: Spans) -> None:
    judged = without(0, end, unjudged)
    at = 0
    for start, block in raw_mix(line, judged):
        watch.skip(start - at)
        if watch.feed(block) is not None:
            return
        at = start + len(block)
    watch.skip(end - at)
    watch.finish()


def _blocks(plan: RenderPlan, line: Timeline, found: _Findings) -> Blocks:
    """Return the blocks of the finished file, before resampling."""
    if plan.mode == "separate":
        return separate(line, found.keep, found.left_digits, found.right_digits)
    if found.own_mix:
        return limited(line, found.keep, found.left_digits, found.right_digits)
    return as_mixed_by_asterisk(line, found.keep)


def _as_it_is(plan: RenderPlan, line: Timeline, found: _Findings) -> str:
    """Return the raw file that already has the wanted form, or an empty string."""
    if plan.file_format != "s16bit" or plan.mode != "mixed" or plan.cipher is not None or found.own_mix:
        return ""
    if line.pieces != 1 or found.keep != [(0, line.frames)] or line.rate != plan.rate:
        return ""
    path = line.parts["mixed"][0].path
    try:
        info = wavfile.inspect(path)
    except AudioError:
        return ""
    plain = info.complete and info.tag == wavfile.PCM and info.bits == 16 and info.rate == plan.rate
    whole = info.data_offset == 44 and info.riff_bytes == 44 + info.data_bytes and info.frames == line.frames
    fits = not plan.byte_limit or info.riff_bytes <= plan.byte_limit
    return path if plain and whole and fits else ""


def _make(
    plan: RenderPlan, line: Timeline, found: _Findings, kept: int, final: FinalFile
) -> tuple[_Heard, int, int, bool]:
    """Run the second pass.

    :returns: the levels, frames, bytes on disk, and whether the size limit cut the recording off
    """
    length = resampled_length(kept, line.rate, plan.rate)
    if not plan.byte_limit:
        heard, frames, _ = _encode(plan, line, found, final, length, 0)
        return heard, frames, final.seal(), False
    budget = plan.byte_limit if plan.cipher is None else plan.cipher.plaintext_budget(plan.byte_limit)
    most = max_frames(plan.file_format, plan.rate, plan.channels, budget)
    cap, watched = (length, budget) if most is None else (min(length, most), 0)
    return _fitted(plan, line, found, final, length, _Aim(cap, budget, watched))


@dataclass(frozen=True, slots=True)
class _Aim:
    """First attempt at a file of limited size.

    :param cap: most frames; :param budget: most plain bytes
    :param watched: the budget where the size depends on the audio, else 0
    """

    cap: int
    budget: int
    watched: int


def _fitted(
    plan: RenderPlan, line: Timeline, found: _Findings, final: FinalFile, length: int, aim: _Aim
) -> tuple[_Heard, int, int, bool]:
    """Encode as many of `length` frames as fill `max_bytes`.

    The first attempt watches the size and stops in time. Since a codec holds audio back, that file is too short where
    the limit is small. Further attempts aim at a length between the longest that fits and the shortest that does not.
    """
    fits, beyond = 0, length + 1
    heard, frames, plain = _encode(plan, line, found, final, aim.cap, aim.watched)
    for attempt in range(_TRIES):
        size = final.seal()
        settled = attempt >= _TRIES // 2 or not aim.watched
        if plain <= aim.budget and size <= plan.byte_limit:
            if settled or frames >= min(length, beyond - 1) or plain >= _WELL_USED * aim.budget:
                return heard, frames, size, frames < length
            fits = frames
        elif frames == 0:
            break
        else:
            beyond = frames
        wanted = round(frames * _TARGET * min(aim.budget / plain, plan.byte_limit / size))
        cap = fits if attempt >= _TRIES // 2 else min(max(wanted, fits + 1), beyond - 1)
        final.restart()
        heard, frames, plain = _encode(plan, line, found, final, cap, 0)
    raise AudioError(f"{plan.target}: max_bytes={plan.byte_limit} is too small for a {plan.file_format} file")


def _encode(
    plan: RenderPlan, line: Timeline, found: _Findings, final: FinalFile, cap: int, budget: int
) -> tuple[_Heard, int, int]:
    """Encode at most `cap` frames, and stop before `budget` bytes (0: no need to look).

    :returns: the levels, frames, plain bytes
    """
    heard = _Heard(Levels(line.rate, plan.silence_dbfs))
    unheard = -(-cap * line.rate // plan.rate)  # raw frames that the cap lets through
    stream = Resampler(line.rate, plan.rate, plan.channels)
    encoder = Encoder(
        final.file,
        plan.file_format,
        plan.rate,
        plan.channels,
        plan.target,
        bit_rate=plan.bit_rate,
        frames=cap,
        most_bytes=plan.byte_limit if plan.cipher is None else plan.cipher.plaintext_budget(plan.byte_limit),
    )
    with encoder, closing(_blocks(plan, line, found)) as blocks:
        empty = encoder.bytes_written
        step = _WATCHED_FRAMES if budget else cap or 1
        full = cap == 0
        while not full:
            block, peaks = next(blocks, (None, _NO_PEAKS))
            if block is not None:
                heard.feed(block[:unheard], peaks[:unheard])
                unheard = max(0, unheard - len(block))
            out = stream.finish() if block is None else stream.feed(block)
            for start in range(0, len(out), step):
                part = out[start : start + min(step, cap - encoder.frames)]
                if budget and _would_pass(plan, encoder, empty, len(part), budget):
                    full = True
                    break
                encoder.write(part)
                full = encoder.frames >= cap
                if full:
                    break
            if block is None:
                break
    return heard, encoder.frames, encoder.bytes_written


def _would_pass(plan: RenderPlan, encoder: Encoder, empty: int, more: int, budget: int) -> bool:
    """Tell whether `more` frames may take the file past its budget, by its bytes per frame so far."""
    done = max(1, encoder.frames)
    per_frame = max((encoder.bytes_written - empty) / done, 0.05)
    waiting = more + format_named(plan.file_format).held_back_seconds * plan.rate
    return encoder.bytes_written + waiting * per_frame > budget
