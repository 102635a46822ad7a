"""The parts of a started `App`, and the order in which they start and stop.

Parts start in the order of need: ledger, sinks, recovery, Asterisks, and the dialplan last. Stopping is the reverse,
and waits for endings that have begun.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from fastagi.agi import AgiServer, HandlerThreads
from fastagi.agi.descriptors import Descriptors
from fastagi.ami import Manager
from fastagi.app.identity import Identity
from fastagi.app.keyfile import key_file, opens_the_ledger
from fastagi.app.room import sessions_that_fit
from fastagi.cipher import MasterKey
from fastagi.delivery import DeliveryWorker, Dispatcher, SinkRegistry, open_dispatcher
from fastagi.delivery.registry import registry_of
from fastagi.delivery.runner import Where
from fastagi.delivery.sink import AnySink
from fastagi.errors import ConfigError
from fastagi.handlers import record
from fastagi.handlers.user_events import UserEvents
from fastagi.ownership import denied, user_name
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.call import CallChannel
from fastagi.recording.commands import Commands
from fastagi.recording.service import RecordingService
from fastagi.recording.sinks import SinkNames
from fastagi.recording.wiring import assemble
from fastagi.settings import AsteriskSettings, Settings
from fastagi.store import Store, open_store
from fastagi.web import HttpServer, Observations, WebDependencies

log = structlog.get_logger(__name__)

FOLDER_SECONDS = 2.0


@dataclass(slots=True)
class OwnSinks:
    """Sinks that a program has given its app.

    :ivar named: sinks and their loops, by the names under which they were registered
    :ivar defaults: sinks of the recordings that name none
    :ivar recording_sink: the one without a name
    """

    recording_sink: AnySink | None = None
    named: dict[str, tuple[AnySink, Where]] = field(default_factory=dict)
    defaults: list[str] = field(default_factory=list)


class Runtime:
    """Everything that a started app owns, in the order in which it starts.

    :param managers: the AMI connections, by `[[asterisk]] name`
    :param own: sinks that are not from the settings
    :param handle: serves a call; gets these parts with each, because the first can come before `start` has returned
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        managers: Mapping[str, Manager],
        own: OwnSinks,
        handle: Callable[[Runtime, CallChannel], Awaitable[None]],
    ) -> None:
        self.settings = settings
        self.descriptors = Descriptors()
        self.descriptors.raise_limit()
        max_sessions = sessions_that_fit(settings, self.descriptors.limit)
        self._clock = clock
        self._managers = managers
        self._own = own
        self.registry: SinkRegistry = registry_of(settings.sinks)
        self.sink_names = SinkNames(self.registry, self._default_sinks())
        self.store: Store = open_store(settings.store.url, node=settings.store.node)
        self.dispatcher: Dispatcher = open_dispatcher(self.store, clock=clock)
        self.observed = Observations(clock)
        self.courier = DeliveryWorker(
            self.store,
            self.dispatcher,
            self.registry,
            clock=clock,
            on_attempt=self.observed.attempt,
            shared_files=settings.recordings.shared,
        )
        self.master = MasterKey.load_or_create(self._key_file())
        sections = settings.asterisk or [AsteriskSettings()]
        self.pbxs: dict[str, Pbx] = {s.name: Pbx(s, managers.get(s.name), clock) for s in sections}
        self.identity = Identity(self.pbxs)
        parts = assemble(
            settings.recordings,
            self.store,
            self.courier,
            self.pbxs,
            self.master,
            node=settings.store.node,
            default_sinks=lambda: self.sink_names.names(None),
            listeners=(self.observed.journal,),
            clock=clock,
        )
        self.recorder = RecordingService(parts, self.courier)
        self.commands = Commands(self.recorder, self.sink_names)
        self.user_events = UserEvents(self.recorder, self.commands)
        self.threads = HandlerThreads(settings.agi.threads)
        agi = settings.agi
        self.agi_key = agi.shared_key()
        self.agi: AgiServer[CallChannel] = AgiServer(
            partial(handle, self),
            host=agi.host,
            port=agi.port,
            allow=agi.allow,
            max_sessions=max_sessions,
            header_seconds=agi.header_seconds,
            idle_seconds=agi.idle_seconds,
            channel_factory=CallChannel,
            descriptors=self.descriptors,
            refusal=record.refusal,
        )
        self.http: HttpServer | None = HttpServer(self._sources(), self.observed) if settings.http.enabled else None

    def _sources(self) -> WebDependencies:
        return WebDependencies(
            self.settings,
            self.store,
            self.recorder,
            self.commands,
            self.courier,
            self.registry,
            self.sink_names,
            self.pbxs,
            self.agi,
            self.descriptors,
            self._clock,
        )

    def _default_sinks(self) -> tuple[str, ...]:
        names = [s.name for s in self.settings.sinks if s.default]
        for name, (sink, loop) in self._own.named.items():
            registered = self.registry.register(name, sink, loop=loop)
            if name in self._own.defaults:
                names += registered
        if self._own.recording_sink is not None:
            names += self.registry.register("recording_sink", self._own.recording_sink)
        return tuple(names)

    def _key_file(self) -> Path:
        path = key_file(self.settings)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            if isinstance(exc, PermissionError):
                fault = denied(path, exc)
            else:
                fault = f"{exc.filename or path.parent}: {exc.strerror}: it must be a file that this user may make"
            raise ConfigError(f"recordings.key_file = {str(path)!r}: {fault}") from None
        return path

    async def _same_master(self) -> None:
        """Log when the master key is not the one that wrapped the ledger's keys.

        The ledger was moved or restored without its key. Older recordings cannot be opened; new ones are made all the
        same.
        """
        if not await opens_the_ledger(self.master, self.store.read):
            log.error(
                "master_key_is_another",
                file=str(key_file(self.settings)),
                hint="[recordings] key_file must name the master key that the ledger was written with",
            )

    async def start(self, on_calls: Callable[[], None]) -> None:
        """Start all parts. The caller also calls `stop`, even when this fails or is cancelled.

        :param on_calls: called just before calls can come, which is before this returns
        """
        await self.store.start()
        await self._same_master()
        await self.recorder.open()
        for pbx in self.pbxs.values():
            pbx.follow((*self.recorder.event_handlers, self.user_events.event_handler))
        await self.courier.start()
        for manager in self._managers.values():
            await manager.start()
        if self.http is not None:
            await self.http.start()
        on_calls()
        await self.agi.start()
        await self._look_at_folders()
        await self._look_whose_it_is()
        if not self.settings.asterisk:
            log.warning(
                "no_asterisk", hint="there is no [[asterisk]] in the settings: nothing is known of calls but by AGI"
            )
        if self.agi.max_sessions < self.settings.agi.max_sessions:
            log.warning(
                "max_sessions_lowered",
                max_sessions=self.agi.max_sessions,
                limit=self.descriptors.limit,
                hint="so few file descriptors are allowed: raise LimitNOFILE (ulimit -n)",
            )
        log.info(
            "serving",
            agi_port=self.agi.port,
            asterisks=list(self.pbxs) if self.settings.asterisk else [],
            sinks=[entry.name for entry in self.registry],
            store=self.store.shown,
        )

    async def _look_whose_it_is(self) -> None:
        """Log when root serves and the folders belong to another user, who cannot use the folders that root makes."""
        directory = self.settings.recordings.directory
        owner = await asyncio.to_thread(_owner, directory) if os.geteuid() == 0 else 0
        if owner:
            log.warning(
                "root_serves_for_another",
                path=str(directory),
                owner=user_name(owner),
                hint=f"sudo -u {user_name(owner)} fastagi serve; then fastagi doctor --user {user_name(owner)} --fix",
            )

    async def _look_at_folders(self) -> None:
        """Log the faults of folders at the start: recordings would fail one by one. `/readyz` shows them later."""
        folders = dict.fromkeys([*(pbx.spool for pbx in self.pbxs.values()), self.settings.recordings.directory])
        for folder in folders if self.settings.asterisk else ():
            try:
                async with asyncio.timeout(FOLDER_SECONDS):  # a network folder may never answer
                    ok = await self.recorder.run_in_thread(_ours, folder)
            except TimeoutError:
                ok = False
            if not ok:
                log.error("folder_not_writable", path=str(folder), hint="fastagi doctor says what to do")

    async def stop(self, drain_seconds: float) -> None:
        """Stop all parts. Each step is taken even if another failed; when cancelled, none waits any more."""
        deadline = time.monotonic() + drain_seconds
        cancelled: asyncio.CancelledError | None = None

        def left(least: float = 1.0) -> float:
            return max(least, deadline - time.monotonic())

        async def close_pbxs() -> None:
            for pbx in self.pbxs.values():
                pbx.close()

        steps: dict[str, Callable[[], Awaitable[None]]] = {
            **({"http": self.http.stop} if self.http is not None else {}),
            "agi sessions": lambda: self.agi.drain(min(drain_seconds / 2, left(0.0))),
            # the dialplan is served until nothing is left to wait for, so that a stop or pause is not refused
            "recordings": lambda: self.recorder.drain(left()),
            "agi": lambda: self.agi.stop(0.0 if cancelled else min(1.0, drain_seconds)),
            "recorder": lambda: self.recorder.close(left()),
            **{f"ami {name}": manager.stop for name, manager in self._managers.items()},
            "asterisks": close_pbxs,
            "deliveries": lambda: self.courier.stop(left()),
            "sinks": self.registry.aclose,
            "threads": lambda: self.threads.stop(0.0 if cancelled else 5.0),
            "ledger": self.store.stop,
        }
        for name, step in steps.items():
            try:
                await step()
            except asyncio.CancelledError as exc:
                cancelled, deadline = exc, 0.0
            except Exception as exc:
                log.error("stop_failed", step=name, error=f"{type(exc).__name__}: {exc}", exc_info=True)
        log.info("stopped")
        if cancelled is not None:
            raise cancelled


def _ours(folder: Path) -> bool:
    """Return whether this process may read and write there; True for a folder that is not there yet."""
    return not folder.exists() or os.access(folder, os.R_OK | os.W_OK | os.X_OK)


def _owner(folder: Path) -> int:
    """Return the owner's uid; root's for a folder that is not there yet."""
    try:
        return folder.stat().st_uid
    except OSError:
        return 0
