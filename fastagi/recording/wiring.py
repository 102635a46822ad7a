"""Builds the parts of the recorder: each once, complete when it is made, in the order in which one needs another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastagi.cipher import MasterKey
from fastagi.delivery import DeliveryWorker
from fastagi.recording.announcing import Announcer
from fastagi.recording.asterisk.pbx import EventHandler, Pbx
from fastagi.recording.compliance.completeness import EVENTS as CALL_EVENTS
from fastagi.recording.compliance.completeness import Completeness
from fastagi.recording.compliance.evidence import Evidence
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecordings
from fastagi.recording.ledger.bounds import Bounds
from fastagi.recording.ledger.journal import Journal, Listener
from fastagi.recording.ledger.keys import KeyStore
from fastagi.recording.ledger.spill_file import PURPOSE, SpillFolder
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.finishing import Finalizer
from fastagi.recording.lifecycle.following import EVENTS as TRANSFER_EVENTS
from fastagi.recording.lifecycle.following import TransferFollower
from fastagi.recording.lifecycle.hangups import EVENTS as END_EVENTS
from fastagi.recording.lifecycle.hangups import HangupHandler
from fastagi.recording.lifecycle.participants import EVENTS as BRIDGE_EVENTS
from fastagi.recording.lifecycle.participants import ParticipantTracker
from fastagi.recording.lifecycle.pausing import Pauser
from fastagi.recording.lifecycle.segments import SegmentController
from fastagi.recording.lifecycle.starting import Starter
from fastagi.recording.lifecycle.stopping import Stopper
from fastagi.recording.monitoring.flushing import Flusher
from fastagi.recording.monitoring.levels import LevelMonitor
from fastagi.recording.monitoring.lost_files import LostFileRecovery
from fastagi.recording.monitoring.talk_detect import EVENTS as TALK_EVENTS
from fastagi.recording.monitoring.watch import Watch
from fastagi.recording.recovery.adoption import EVENTS as MIXMONITOR_EVENTS
from fastagi.recording.recovery.adoption import Adoption
from fastagi.recording.recovery.restart import Recovery
from fastagi.recording.recovery.side_files import SideFileReplay
from fastagi.recording.recovery.sweep import Sweep
from fastagi.recording.recovery.takeover import Takeover
from fastagi.recording.tracking import Tracker
from fastagi.runtime.tasks import Tasks
from fastagi.runtime.threads import FileThreads
from fastagi.settings import RecordingSettings
from fastagi.store import Store


@dataclass(frozen=True, slots=True)
class RecordingParts:
    """The parts of `fastagi.recording.service.RecordingService`. Only tests reach for them besides."""

    context: RecordingContext
    starter: Starter
    finalizer: Finalizer
    stopper: Stopper
    pauser: Pauser
    follower: TransferFollower
    participants: ParticipantTracker
    hangups: HangupHandler
    watch: Watch
    tracker: Tracker
    hearing: LevelMonitor
    announcer: Announcer
    completeness: Completeness
    evidence: Evidence
    recovery: Recovery
    side_files: SideFileReplay
    takeover: Takeover
    adoption: Adoption
    sweep: Sweep

    @property
    def event_handlers(self) -> tuple[EventHandler, ...]:
        """The declarations of the AMI events that the parts want, in the order in which they are told: a call is
        judged, and whom it talked with is noted, before its recording is ended.
        """
        return (
            EventHandler(CALL_EVENTS, self.completeness.event),
            EventHandler(BRIDGE_EVENTS, self.participants.event),
            *((EventHandler(MIXMONITOR_EVENTS, self.adoption.event),) if self.context.settings.adopt else ()),
            EventHandler(TALK_EVENTS, self.watch.listening.event),
            EventHandler(TRANSFER_EVENTS, self.follower.event),
            EventHandler(END_EVENTS, self.hangups.event),
        )


def assemble(
    settings: RecordingSettings,
    store: Store,
    courier: DeliveryWorker,
    pbxs: Mapping[str, Pbx],
    master: MasterKey,
    *,
    node: str,
    default_sinks: Callable[[], tuple[str, ...]] = lambda: (),
    listeners: tuple[Listener, ...] = (),
    clock: Callable[[], float] = time.time,
) -> RecordingParts:
    """Build the recorder's parts; nothing runs yet.

    :param pbxs: by `[[asterisk]] name`
    :param node: this server's name in the ledger
    :param default_sinks: names of the sinks of a recording that nobody asked for here
    :param listeners: told of every journal entry
    """
    jobs, tasks, threads, sweep_now = ActiveRecordings(), Tasks(), FileThreads(settings.finishers), asyncio.Event()
    spools = {name: pbx.spool for name, pbx in pbxs.items()}
    announcer = Announcer(pbxs, jobs, tasks.spawn)
    journal = Journal(
        store,
        courier,
        SpillFolder(settings.side_folder, master.derive(PURPOSE)),
        Bounds(settings.directory, spools),
        clock,
        on_lost=jobs.lose,
        on_caught_up=sweep_now.set,
        listeners=(announcer.changed, *listeners),
    )
    context = RecordingContext(
        settings, store, journal, jobs, KeyStore(store, master), tasks, threads, pbxs, node, default_sinks, clock
    )
    engine = Engine(context)
    starter, finalizer = Starter(context, engine), Finalizer(context, engine)
    stopper = Stopper(context, engine, finalizer)
    segments = SegmentController(context, engine, starter)
    pauser, follower = Pauser(context, engine, segments), TransferFollower(context, engine, segments)
    watch = Watch(context, stopper, LostFileRecovery(context, engine, segments), Flusher(context, engine, segments))
    completeness = Completeness(store, jobs, pbxs, settings.required, clock=clock, listeners=(announcer.judged,))
    participants = ParticipantTracker(context, engine, completeness.joined)
    tracker = Tracker(context, stopper, pauser, participants, watch)
    recovery = Recovery(context, engine, starter, stopper, tracker.track)
    takeover = Takeover(context, recovery)
    return RecordingParts(
        context=context,
        starter=starter,
        finalizer=finalizer,
        stopper=stopper,
        pauser=pauser,
        follower=follower,
        participants=participants,
        hangups=HangupHandler(context, stopper, follower),
        watch=watch,
        tracker=tracker,
        hearing=LevelMonitor(jobs, threads, silence_dbfs=settings.silence_dbfs, quiet_seconds=settings.quiet_seconds),
        announcer=announcer,
        completeness=completeness,
        evidence=Evidence(
            store,
            threads,
            node=node,
            retention_days=settings.retention_days,
            spools=spools,
            side_folder=settings.side_folder,
            clock=clock,
            tell=journal.tell,
        ),
        recovery=recovery,
        side_files=SideFileReplay(context, recovery, folders=[*spools.values(), settings.directory]),
        takeover=takeover,
        adoption=Adoption(context, track=tracker.track, stopped=stopper.on_external_stop),
        sweep=Sweep(context, stopper, finalizer, dead=takeover.dead.__contains__, wake=sweep_now),
    )
