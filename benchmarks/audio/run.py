"""Audio finishing against sox and ffmpeg, DTMF scan speed, memory, and the event loop beside a two-hour rendering.

    python benchmarks/audio/run.py                     everything, about three minutes
    python benchmarks/audio/run.py --quick             without the two hours
    python benchmarks/audio/run.py --talk-off FOLDER   count false digits in a folder of recorded speech instead

Everything is CPU time (user and system, children included), the least of several runs, and good only as a ratio within
one run. sox and ffmpeg are started per file, as a recorder that calls them would. Ours is shown twice: in a server that
is already running, which is how it works, and as a new process with its imports. Ours does more in that time: headers
checked, levels measured, SHA-256, fsync of file and folder, rename. The sound is made here; real speech costs the DTMF
scan two to three times as much (18,000 times real time instead of 50,000 on Asterisk's prompts).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastagi.audio import BLOCK_FRAMES, DtmfScanner, Encoder, RawPiece, RenderPlan, mix, open_reader, render
from fastagi.cipher import AesGcmCipher
from fastagi.errors import AudioError

# after fastagi.audio, which keeps numpy's BLAS from starting a thread per core: they would be counted as CPU time
import numpy as np  # isort: skip
from numpy.typing import NDArray  # isort: skip

Samples = NDArray[np.int16]
LENGTHS = {"5 s": 5, "3 min": 180, "2 h": 7200}
REPEATS = {5: 15, 180: 5, 7200: 2}

ONE_PROCESS = """
import sys
from fastagi.audio import RawPiece, RenderPlan, render
m, r, t, target, file_format, rate, mode, dtmf = sys.argv[1:]
render(RenderPlan((RawPiece(m, r, t),), target, file_format, int(rate), mode=mode, dtmf_elim=dtmf == "1"))
"""


@dataclass(frozen=True)
class Job:
    """One kind of finished file, for us and for the others; {m} mixed, {r} received, {t} sent, {o} output."""

    name: str
    file_format: str
    rate: int
    mode: str
    dtmf: bool
    legs: bool
    sox: str
    ffmpeg: str
    least: float
    """Our speed, warm, against sox's that the design asks for; 0 where it asks for none."""


_IN = "ffmpeg -nostdin -v error -y -i {m} "
_TWO = "ffmpeg -nostdin -v error -y -i {r} -i {t} -filter_complex "
JOBS = (
    Job("alaw", "alaw", 8000, "mixed", False, False, "sox {m} -e a-law {o}.wav", _IN + "-c:a pcm_alaw {o}.wav", 1 / 3),
    Job(
        "alaw 11025",
        "alaw",
        11025,
        "mixed",
        False,
        False,
        "sox {m} -e a-law -r 11025 {o}.wav",
        _IN + "-ar 11025 -c:a pcm_alaw {o}.wav",
        1.0,
    ),
    Job(
        "ima",
        "ima",
        8000,
        "mixed",
        False,
        False,
        "sox {m} -e ima-adpcm {o}.wav",
        _IN + "-c:a adpcm_ima_wav {o}.wav",
        1.0,
    ),
    Job("flac", "flac", 8000, "mixed", False, False, "sox {m} {o}.flac", _IN + "{o}.flac", 1.0),
    Job(
        "stereo alaw of two legs",
        "alaw",
        8000,
        "separate",
        False,
        True,
        "sox -M {r} {t} -e a-law {o}.wav",
        _TWO + "[0:a][1:a]amerge=inputs=2 -c:a pcm_alaw {o}.wav",
        0.0,
    ),
    Job(
        "alaw, digits out of both legs",
        "alaw",
        8000,
        "mixed",
        True,
        True,
        "sox -m -v 1 {r} -v 1 {t} -e a-law {o}.wav",
        _TWO + "[0:a][1:a]amix=inputs=2 -c:a pcm_alaw {o}.wav",
        0.0,
    ),
)


def minute() -> Samples:
    """One minute of something like speech: harmonics that glide, in bursts, over a quiet line."""
    rng = np.random.default_rng(1)
    out = rng.normal(0, 6, 60 * 8000)
    at = 0
    while at < len(out) - 8000:
        length = int(rng.integers(800, 4000))
        time_ = np.arange(length) / 8000
        phase = 2 * np.pi * np.cumsum(rng.uniform(90, 240) * (1 + rng.uniform(-0.3, 0.3) * time_)) / 8000
        sound = sum(np.sin(h * phase + h) / h for h in range(1, 13))
        out[at : at + length] += np.asarray(sound) * rng.uniform(800, 5000) * np.sin(np.pi * np.arange(length) / length)
        at += length + int(rng.choice([200, 1500, 9000]))
    return np.clip(np.rint(out), -32768, 32767).astype(np.int16)


def make_call(folder: Path, seconds: int) -> RawPiece:
    """Raw files of a call, written in blocks: the benchmark's own memory must not grow either."""
    received = minute()
    sent = np.roll(received, 30 * 8000 + 77)
    both = mix(received, sent)
    paths = []
    for name, samples in (("m", both), ("r", received), ("t", sent)):
        path = folder / f"{seconds}-{name}.wav"
        with Encoder(path, "s16bit", 8000) as encoder:
            left = seconds * 8000
            while left:
                encoder.write(samples[:left])
                left -= min(left, len(samples))
        paths.append(str(path))
    return RawPiece(paths[0], paths[1], paths[2])


def cpu(work: Callable[[], object], repeats: int) -> float:
    """The least CPU seconds of several runs, children included."""

    def used() -> float:
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))

    best = float("inf")
    for _ in range(repeats):
        before = used()
        work()
        best = min(best, used() - before)
    return max(best, 1e-4)


def batch_cpu(work: Callable[[], object], repeats: int, batch: int) -> float:
    """The same for work that is shorter than the kernel's clock can tell: several in a row."""

    def many() -> None:
        for _ in range(batch):
            work()

    return cpu(many, repeats) / batch


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def compare(folder: Path, lengths: dict[str, int]) -> None:
    print("CPU seconds; in brackets how many times faster than sox (above 1: faster)\n")
    print(f"{'job':31}{'length':8}{'sox':>9}{'ffmpeg':>17}{'ours, warm':>17}{'ours, process':>17}  wanted")
    for job in JOBS:
        for label, seconds in lengths.items():
            call = make_call(folder, seconds)
            target = str(folder / "ours.bin")
            names = {"m": call.mixed, "r": call.received, "t": call.sent, "o": str(folder / "theirs")}
            piece = call if job.legs else RawPiece(call.mixed)
            plan = RenderPlan((piece,), target, job.file_format, job.rate, mode=job.mode, dtmf_elim=job.dtmf)
            ours = [sys.executable, "-c", ONE_PROCESS, piece.mixed, piece.received, piece.sent, target]
            ours += [job.file_format, str(job.rate), job.mode, str(int(job.dtmf))]
            repeats = REPEATS[seconds]
            render(plan)
            sox = cpu(partial(run, job.sox.format(**names).split()), repeats)
            ffmpeg = cpu(partial(run, job.ffmpeg.format(**names).split()), repeats)
            warm = batch_cpu(partial(render, plan), repeats, 20 if seconds == 5 else 1)
            process = cpu(partial(run, ours), min(repeats, 5))
            cells = "".join(f"{value:9.4f} ({sox / value:5.2f})" for value in (ffmpeg, warm, process))
            wanted = "" if not job.least else f"{job.least:.2f} {'held' if sox / warm >= job.least else 'MISSED'}"
            print(f"{job.name:31}{label:8}{sox:9.4f}{cells}  {wanted}", flush=True)


def dtmf_speed(seconds: int) -> None:
    samples = minute()
    frames = samples.reshape(-1, 80)
    loud = frames[(frames.astype(np.float32) ** 2).mean(axis=1) > 100**2].reshape(-1)
    both = {"speech with pauses": samples, "the same without pauses": loud}
    print("\nDTMF scan of one leg, times real time (wanted 8000)")
    for name, sound in both.items():
        count = max(1, seconds * 8000 // len(sound))

        def scan(sound: Samples = sound, count: int = count) -> None:
            scanner = DtmfScanner(8000)
            for _ in range(count):
                for start in range(0, len(sound), BLOCK_FRAMES):
                    scanner.feed(sound[start : start + BLOCK_FRAMES])
            scanner.finish()

        spent = cpu(scan, 2)
        print(f"  {name:28}{count * len(sound) / 8000 / spent:9.0f}", flush=True)


MEMORY = """
import sys
from fastagi.audio import RawPiece, RenderPlan, render
from fastagi.cipher import AesGcmCipher
m, r, t, target, file_format = sys.argv[1:]
plan = RenderPlan((RawPiece(m, r, t),), target, file_format, 8000 if file_format == "flac" else 11025,
                  max_silence_ms=60000, cipher=AesGcmCipher(b"k" * 32))
render(plan)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def memory(folder: Path, longest: int) -> None:
    print("\npeak memory, MB, of a process that renders one call with everything switched on (wanted < 5 apart)")
    for file_format in ("alaw", "ima", "flac"):
        peaks = []
        for seconds in (5, longest):
            call = make_call(folder, seconds)
            command = [
                sys.executable,
                "-c",
                MEMORY,
                call.mixed,
                call.received,
                call.sent,
                str(folder / "x"),
                file_format,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.append(int(done.stdout) / 1024)
        short, long = peaks
        print(
            f"  {file_format:8} 5 s: {short:6.1f}   {longest} s: {long:6.1f}   growth {long - short:5.1f}", flush=True
        )


async def lag(folder: Path, seconds: int) -> None:
    call = make_call(folder, seconds)

    async def measure(work: Callable[[], object]) -> list[float]:
        job = asyncio.create_task(asyncio.to_thread(work))
        lags = []
        while not job.done():
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append((time.perf_counter() - start - 0.001) * 1000)
        await job
        return lags

    print(f"\nevent loop lag, ms, beside the rendering of {seconds} s in a thread (wanted p99 < 10)")
    plans = {
        "nothing (sleeping thread)": None,
        "alaw 11025, digits, AES-GCM": RenderPlan(
            (call,), str(folder / "a"), rate=11025, cipher=AesGcmCipher(b"k" * 32)
        ),
        "ima": RenderPlan((call,), str(folder / "b"), "ima"),
        "flac stereo": RenderPlan((call,), str(folder / "c"), "flac", mode="separate"),
    }
    for name, plan in plans.items():
        lags = await measure(partial(time.sleep, 2) if plan is None else partial(render, plan))
        p50, p99 = np.percentile(lags, [50, 99])
        print(f"  {name:30} p50 {p50:5.2f}  p99 {p99:5.2f}  worst {max(lags):6.2f}  ({len(lags)} samples)", flush=True)


def talk_off(folder: Path) -> None:
    """False digits in recorded speech, every file also faster, slower and quieter: more voices than there are."""
    seconds, found = 0.0, 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            reader = open_reader(path, 8000)
        except AudioError:
            continue
        samples = reader.read(1 << 30) if reader.channels == 1 else np.zeros(0, np.int16)
        reader.close()
        for speed in (1.0, 0.93, 1.08, 0.86, 1.16):
            index = np.arange(0, max(0, len(samples) - 1), speed)
            turned = np.interp(index, np.arange(len(samples)), samples).astype(np.int16) if len(samples) else samples
            scanner = DtmfScanner(8000)
            scanner.feed(turned)
            digits = scanner.finish()
            seconds += len(turned) / 8000
            found += len(digits)
            for digit in digits:
                print(f"  {path} x{speed}: {digit.start / 8000:.2f} s")
    print(f"{found} digits in {seconds / 3600:.2f} hours (wanted: at most 1 an hour where there are none)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the two hours")
    parser.add_argument("--talk-off", type=Path, metavar="FOLDER", help="count false digits in recorded speech")
    chosen = parser.parse_args()
    if chosen.talk_off:
        talk_off(chosen.talk_off)
        return
    for program in ("sox", "ffmpeg"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed: apt-get install sox ffmpeg")
    longest = 1800 if chosen.quick else 7200
    lengths = {label: seconds for label, seconds in LENGTHS.items() if seconds <= longest}
    with tempfile.TemporaryDirectory(prefix="fastagi-bench-") as name:
        folder = Path(name)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        compare(folder, lengths)
        dtmf_speed(longest)
        memory(folder, longest)
        asyncio.run(lag(folder, longest))


if __name__ == "__main__":
    main()
