"""Builds the parts of the recorder: each once, complete when it is made, in the order in which one needs another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastagi.cipher import MasterKey
from fastagi.delivery import Courier
from fastagi.recording.announcing import Announcer
from fastagi.recording.asterisk.pbx import EventHandler, Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.course.company import EVENTS as BRIDGE_EVENTS
from fastagi.recording.course.company import Company
from fastagi.recording.course.engine import Engine
from fastagi.recording.course.finishing import Finalizer
from fastagi.recording.course.following import EVENTS as TRANSFER_EVENTS
from fastagi.recording.course.following import Follower
from fastagi.recording.course.hangups import EVENTS as END_EVENTS
from fastagi.recording.course.hangups import Hangups
from fastagi.recording.course.pausing import Pauser
from fastagi.recording.course.segments import SegmentController
from fastagi.recording.course.starting import Starter
from fastagi.recording.course.stopping import Stopper
from fastagi.recording.ledger.job import Jobs
from fastagi.recording.ledger.journal import Journal, Listener
from fastagi.recording.ledger.keys import KeyStore
from fastagi.recording.proof.completeness import EVENTS as CALL_EVENTS
from fastagi.recording.proof.completeness import Completeness
from fastagi.recording.proof.evidence import Evidence
from fastagi.recording.recovery.adoption import EVENTS as MIXMONITOR_EVENTS
from fastagi.recording.recovery.adoption import Adoption
from fastagi.recording.recovery.restart import Recovery
from fastagi.recording.recovery.side_files import SideFileReplay
from fastagi.recording.recovery.sweep import Sweep
from fastagi.recording.recovery.takeover import Takeover
from fastagi.recording.runtime.tasks import Tasks
from fastagi.recording.runtime.threads import FileThreads
from fastagi.recording.spool.bounds import Bounds
from fastagi.recording.spool.sidefile import PURPOSE, SideFolder
from fastagi.recording.tracking import Tracker
from fastagi.recording.watching.flushing import Flusher
from fastagi.recording.watching.hearing import Hearing
from fastagi.recording.watching.salvaging import Salvager
from fastagi.recording.watching.talking import EVENTS as TALK_EVENTS
from fastagi.recording.watching.watch import Watch
from fastagi.settings import RecordingSettings
from fastagi.store import Store


@dataclass(frozen=True, slots=True)
class RecordingParts:
    """What `fastagi.recording.service.RecordingService` is made of. Nobody else reaches for these, but tests."""

    context: RecordingContext
    starter: Starter
    finalizer: Finalizer
    stopper: Stopper
    pauser: Pauser
    follower: Follower
    company: Company
    hangups: Hangups
    watch: Watch
    tracker: Tracker
    hearing: Hearing
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
        """Who wants which of Asterisk's events, in the order in which they are told: a call is judged, and whom it
        talked with is noted, before its recording is ended."""
        return (
            EventHandler(CALL_EVENTS, self.completeness.event),
            EventHandler(BRIDGE_EVENTS, self.company.event),
            *((EventHandler(MIXMONITOR_EVENTS, self.adoption.event),) if self.context.settings.adopt else ()),
            EventHandler(TALK_EVENTS, self.watch.listening.event),
            EventHandler(TRANSFER_EVENTS, self.follower.event),
            EventHandler(END_EVENTS, self.hangups.event),
        )


def assemble(
    settings: RecordingSettings,
    store: Store,
    courier: Courier,
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
    jobs, tasks, threads, sweep_now = Jobs(), Tasks(), FileThreads(settings.finishers), asyncio.Event()
    spools = {name: pbx.spool for name, pbx in pbxs.items()}
    announcer = Announcer(pbxs, jobs, tasks.spawn)
    journal = Journal(
        store,
        courier,
        SideFolder(settings.side_folder, master.derive(PURPOSE)),
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
    pauser, follower = Pauser(context, engine, segments), Follower(context, engine, segments)
    watch = Watch(context, stopper, Salvager(context, engine, segments), Flusher(context, engine, segments))
    completeness = Completeness(store, jobs, pbxs, settings.required, clock=clock, listeners=(announcer.judged,))
    company = Company(context, engine, completeness.joined)
    tracker = Tracker(context, stopper, pauser, company, watch)
    recovery = Recovery(context, engine, starter, stopper, tracker.track)
    takeover = Takeover(context, recovery)
    return RecordingParts(
        context=context,
        starter=starter,
        finalizer=finalizer,
        stopper=stopper,
        pauser=pauser,
        follower=follower,
        company=company,
        hangups=Hangups(context, stopper, follower),
        watch=watch,
        tracker=tracker,
        hearing=Hearing(jobs, threads, silence_dbfs=settings.silence_dbfs, quiet_seconds=settings.quiet_seconds),
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
