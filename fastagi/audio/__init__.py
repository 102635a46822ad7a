"""Audio: Asterisk's raw recordings into finished files. Blocking and streaming; called in worker threads.

Wired by `fastagi.recording`; calls, events and stores are unknown here. `render` makes a finished file. Its parts are
public because the level monitor judges the same silence and counts the same bytes while the call still runs.
"""

from __future__ import annotations

import os

# numpy's BLAS starts a thread per core at import; they would spin beside the event loop. The products here are small.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from fastagi.audio.digits import Digit
from fastagi.audio.dtmf import DtmfScanner
from fastagi.audio.elimination import eliminate, spans
from fastagi.audio.encoder import Encoder
from fastagi.audio.finalfile import TEMPORARY_SUFFIX, is_temporary, sync_folder, temporary_name
from fastagi.audio.growing import GrowingWav
from fastagi.audio.levels import LevelFacts, Levels, one_sided
from fastagi.audio.mix import interleave, mix
from fastagi.audio.peaks import Peaks, file_peaks
from fastagi.audio.plan import FileCipher, Permit, RawPiece, Rendered, RenderPlan
from fastagi.audio.reader import BLOCK_FRAMES, Reader, open_reader
from fastagi.audio.render import render
from fastagi.audio.resample import Resampler, resampled_length
from fastagi.audio.silence import SilenceWatch
from fastagi.audio.sizes import file_bytes, least_bytes, max_frames
from fastagi.audio.wavfile import Repair, WavInfo, inspect, is_complete, repair

__all__ = [
    "BLOCK_FRAMES",
    "TEMPORARY_SUFFIX",
    "Digit",
    "DtmfScanner",
    "Encoder",
    "FileCipher",
    "GrowingWav",
    "LevelFacts",
    "Levels",
    "Peaks",
    "Permit",
    "RawPiece",
    "Reader",
    "RenderPlan",
    "Rendered",
    "Repair",
    "Resampler",
    "SilenceWatch",
    "WavInfo",
    "eliminate",
    "file_bytes",
    "file_peaks",
    "inspect",
    "interleave",
    "is_complete",
    "is_temporary",
    "least_bytes",
    "max_frames",
    "mix",
    "one_sided",
    "open_reader",
    "render",
    "repair",
    "resampled_length",
    "spans",
    "sync_folder",
    "temporary_name",
]
