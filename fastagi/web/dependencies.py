"""The parts of an app that HTTP reads and acts through. Built by the app; nothing in `web` changes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastagi.agi import AgiServer
from fastagi.agi.descriptors import Descriptors
from fastagi.delivery import DeliveryWorker, SinkRegistry
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.commands import Commands
from fastagi.recording.service import RecordingService
from fastagi.recording.sinks import SinkNames
from fastagi.settings import Settings
from fastagi.store import Store
from fastagi.web.ledger_reads import LedgerReads


@dataclass(frozen=True, slots=True)
class WebDependencies:
    """The parts of one app. `clock` gives unix seconds."""

    settings: Settings
    store: Store
    recorder: RecordingService
    commands: Commands
    courier: DeliveryWorker
    registry: SinkRegistry
    sink_names: SinkNames
    pbxs: Mapping[str, Pbx]
    agi: AgiServer[Any]
    descriptors: Descriptors
    clock: Callable[[], float] = time.time

    @property
    def ledger(self) -> LedgerReads:
        """The ledger, to be read."""
        return LedgerReads(self.store)
