"""A recording's raw files into its one finished file: the order of the steps, and nothing of how each is done.

Two passes. The first looks: headers mended, digits found in each leg, silence judged on the mixed recording as Asterisk
wrote it (digits are sound there, as they were to whoever watched it grow), levels of the legs. The second makes: digits
out, legs mixed or side by side, cut, resampled, encoded, encrypted, synced, renamed. Blocking, streaming in blocks of
16 s, for a worker thread; numpy, soxr and libsndfile let go of the GIL in every step that takes time.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastagi.audio import wavfile
from fastagi.audio.dtmf import DtmfScanner
from fastagi.audio.elimination import eliminate, spans
from fastagi.audio.encoder import Encoder
from fastagi.audio.finalfile import FinalFile
from fastagi.audio.levels import LevelFacts, Levels, one_sided
from fastagi.audio.mix import interleave, mix
from fastagi.audio.plan import MOST_SPANS, Rendered, RenderPlan, ranges, without
from fastagi.audio.resample import Resampler, resampled_length
from fastagi.audio.silence import SilenceWatch
from fastagi.audio.sizes import max_frames
from fastagi.audio.timeline import Timeline, lay_out
from fastagi.errors import AudioError

Samples = NDArray[np.int16]
Spans = list[tuple[int, int]]

_WATCHED_FRAMES = 1 << 11
"""Frames between two looks at the size of a FLAC, Opus or MP3 file: 0.26 s."""

_HELD_BACK_SECONDS = {"flac": 0.6, "mp3": 0.5, "opus": 1.2}
"""Audio that a codec may still hold when its size is read: a FLAC block, MP3's look-ahead, an Ogg page."""

_TRIES = 8
"""Attempts to get a file whose size cannot be computed below the limit; each is shorter than the one before."""


@dataclass(slots=True)
class _Findings:
    """What the first pass saw, in frames of the time line."""

    keep: Spans
    limit: str = ""
    no_sound: bool = False
    left_digits: Spans = field(default_factory=list)
    right_digits: Spans = field(default_factory=list)
    digits: int = 0
    received: LevelFacts | None = None
    sent: LevelFacts | None = None


def render(plan: RenderPlan) -> Rendered:
    """Make the finished file. Idempotent: the raw files stay, and doing it again replaces the file by its like.

    :raises AudioError: the raw files are missing or are no audio, or the target cannot be written
    :raises DiskFull: no room; nothing is left behind and the raw files are kept
    :raises CipherError: the cipher failed
    """
    line = lay_out(plan)
    found = _look(plan, line)
    kept = sum(end - start for start, end in found.keep)
    level = Levels(line.rate, plan.silence_dbfs)
    with FinalFile(plan.target, plan.cipher, plan.permit) as final:
        raw = _as_it_is(plan, line, found)
        if raw:
            for _, block in line.blocks("mixed", found.keep):
                level.feed(block)
            final.take(raw)
            frames, size, full = kept, final.seal(), False
        else:
            level, frames, size, full = _make(plan, line, found, kept, final)
        digest = final.commit()
    digit_spans = sorted((*found.left_digits, *found.right_digits))[:MOST_SPANS]
    return Rendered(
        audio_seconds=round(frames / plan.rate, 3),
        frames=frames,
        bytes=size,
        sha256=digest,
        level=level.facts(),
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
    """Where the gaps between pieces are in what was kept of the time line."""

    def place(frame: int) -> float:
        kept = sum(max(0, min(frame, end) - start) for start, end in keep)
        return round(min(kept / line.rate, seconds), 3)

    spans_found = ((place(start), place(end)) for start, end in line.gaps)
    return tuple((start, end) for start, end in spans_found if end > start)


def _look(plan: RenderPlan, line: Timeline) -> _Findings:
    """The first pass: where the recording begins and ends, and what is in its legs."""
    end = line.frames
    if plan.max_seconds is not None:
        end = min(end, round(plan.max_seconds * line.rate))
    holes = ranges(plan.cuts, line.rate, end)
    found = _Findings(without(0, end, holes))
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
    if scanners:
        for scanner, target in zip(scanners, (found.left_digits, found.right_digits), strict=True):
            digits = [d for d in scanner.finish() if any(d.start < b and d.end > a for a, b in found.keep)]
            found.digits += len(digits)
            target += spans(digits)
    return found


def _judge(watch: SilenceWatch, line: Timeline, end: int, unjudged: Spans) -> None:
    judged = without(0, end, unjudged)
    at = 0
    for start, block in _raw_mix(line, judged):
        watch.skip(start - at)
        if watch.feed(block) is not None:
            return
        at = start + len(block)
    watch.skip(end - at)
    watch.finish()


def _raw_mix(line: Timeline, parts: Spans) -> Iterator[tuple[int, Samples]]:
    """The mixed recording as Asterisk wrote it, or would have."""
    if not line.own_mix:
        yield from line.blocks("mixed", parts)
        return
    for (at, left), (_, right) in zip(line.blocks("left", parts), line.blocks("right", parts), strict=True):
        yield at, mix(left, right)


def _final_mix(plan: RenderPlan, line: Timeline, found: _Findings) -> Generator[Samples, None, None]:
    """What the finished file holds, before resampling."""
    if plan.mode == "mixed" and not found.digits:
        for _, block in _raw_mix(line, found.keep):
            yield block
        return
    legs = zip(line.blocks("left", found.keep), line.blocks("right", found.keep), strict=True)
    join = mix if plan.mode == "mixed" else interleave
    for (at, left), (_, right) in legs:
        yield join(eliminate(left, at, found.left_digits), eliminate(right, at, found.right_digits))


def _as_it_is(plan: RenderPlan, line: Timeline, found: _Findings) -> str:
    """The raw file that already is what was asked for, or an empty string."""
    if plan.file_format != "s16bit" or plan.mode != "mixed" or plan.cipher is not None or found.digits:
        return ""
    if line.pieces != 1 or line.own_mix or found.keep != [(0, line.frames)] or line.rate != plan.rate:
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
) -> tuple[Levels, int, int, bool]:
    """The second pass.

    :returns: levels, frames, bytes on disk, and whether the size limit cut something off
    """
    length = resampled_length(kept, line.rate, plan.rate)
    if not plan.byte_limit:
        level, frames, _ = _encode(plan, line, found, final, length, 0)
        return level, frames, final.seal(), False
    budget = plan.byte_limit if plan.cipher is None else plan.cipher.plaintext_budget(plan.byte_limit)
    most = max_frames(plan.file_format, plan.rate, plan.channels, budget)
    cap = length if most is None else min(length, most)
    for _ in range(_TRIES):
        level, frames, plain = _encode(plan, line, found, final, cap, budget if most is None else 0)
        size = final.seal()
        if plain <= budget and size <= plan.byte_limit:
            return level, frames, size, frames < length
        cap = int(frames * min(0.95, budget / plain * 0.98)) if frames > plan.rate // 10 else 0
        if frames == 0:
            break
        final.restart()
    raise AudioError(f"{plan.target}: max_bytes={plan.byte_limit} is too small for a {plan.file_format} file")


def _encode(
    plan: RenderPlan, line: Timeline, found: _Findings, final: FinalFile, cap: int, budget: int
) -> tuple[Levels, int, int]:
    """Encode at most `cap` frames, and stop before `budget` bytes (0: no need to look).

    :returns: levels, frames, plain bytes
    """
    level = Levels(line.rate, plan.silence_dbfs)
    unheard = -(-cap * line.rate // plan.rate)  # raw frames that the cap lets through
    stream = Resampler(line.rate, plan.rate, plan.channels)
    encoder = Encoder(final.file, plan.file_format, plan.rate, plan.channels, plan.target)
    with encoder, closing(_final_mix(plan, line, found)) as blocks:
        empty = encoder.bytes_written
        step = _WATCHED_FRAMES if budget else cap or 1
        full = cap == 0
        while not full:
            block = next(blocks, None)
            if block is not None:
                level.feed(block[:unheard])
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
    return level, encoder.frames, encoder.bytes_written


def _would_pass(plan: RenderPlan, encoder: Encoder, empty: int, more: int, budget: int) -> bool:
    """Whether `more` frames may take the file past its budget, going by what it needed per frame so far."""
    done = max(1, encoder.frames)
    per_frame = max((encoder.bytes_written - empty) / done, 0.05)
    waiting = more + _HELD_BACK_SECONDS[plan.file_format] * plan.rate
    return encoder.bytes_written + waiting * per_frame > budget
