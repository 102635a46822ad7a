"""The dependencies that all parts of the recorder share: one typed value, made once, never changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.ledger.active import ActiveRecordings
from fastagi.recording.ledger.journal import Journal
from fastagi.recording.ledger.keys import KeyStore
from fastagi.runtime.tasks import Tasks
from fastagi.runtime.threads import FileThreads
from fastagi.settings import RecordingSettings
from fastagi.store import Store


@dataclass(frozen=True, slots=True)
class RecordingContext:
    """Shared by the parts of one app's recorder.

    :param settings: `[recordings]`
    :param journal: the only door to the ledger for recordings that are worked on
    :param jobs: those recordings
    :param pbxs: by `[[asterisk]] name`
    :param node: this server's name in the ledger
    :param default_sinks: names of the sinks of a recording that nobody asked for here
    :param clock: unix seconds
    """

    settings: RecordingSettings
    store: Store
    journal: Journal
    jobs: ActiveRecordings
    keys: KeyStore
    tasks: Tasks
    threads: FileThreads
    pbxs: Mapping[str, Pbx]
    node: str
    default_sinks: Callable[[], tuple[str, ...]] = lambda: ()
    clock: Callable[[], float] = time.time
