"""`App`: a recorder with its routes, its Asterisks and its sinks.

    app = App()

    @app.route("survey")                  # AGI(agi://host/survey)
    async def survey(call): ...

The parts of a running app, and the order in which they start and stop, are in `runtime`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import structlog

from fastagi.agi import run_blocking
from fastagi.ami import Manager, tls
from fastagi.app.forced_exit import LEAVE_SECONDS, leave_within
from fastagi.app.reload import Reloaded, reload_when
from fastagi.app.reload import reload as reload_parts
from fastagi.app.routes import Handler, Routes, blocking, must_have_run
from fastagi.app.runtime import OwnSinks, Runtime
from fastagi.app.signals import ended_by_signals, told_of_hangups
from fastagi.app.systemd import Systemd
from fastagi.delivery.registry import must_be_name
from fastagi.delivery.runner import Where, must_be_where
from fastagi.delivery.sink import AnySink, must_be_sink
from fastagi.errors import ConfigError, Error, FastAGIError
from fastagi.handlers import ping, record
from fastagi.recording.call import CallChannel
from fastagi.runtime.steady_clock import SteadyClock
from fastagi.settings import AsteriskSettings, Settings, discover, load

log = structlog.get_logger(__name__)

F = TypeVar("F", bound=Handler)

BUILT_IN = {**record.ROUTES, **ping.ROUTES}

LINKEDID_SECONDS = 2.0
"""Seconds for one query on a session on which nothing else runs yet."""

NO_KEY = "the AGI line has no key: write agi://HOST/ROUTE?key=KEY with the key of [agi] key or key_file"

WRONG_KEY = "the AGI line has a wrong key: write agi://HOST/ROUTE?key=KEY with the key of [agi] key or key_file"

DRAIN_SECONDS = 20.0
"""After SIGTERM: seconds for sessions and endings; below systemd's 90 s and Docker's usual 30 s."""


class App:
    """The application.

    :param settings: None for the settings file that `fastagi.settings.discover` finds, and the environment
        (`FASTAGI_...`)
    :param recording_sink: gets every recording that names no other sink
    :param clock: unix seconds; None for the machine's clock without its jumps
    :raises BadArgument: `recording_sink` is no sink
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        recording_sink: AnySink | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if recording_sink is not None:
            must_be_sink(recording_sink)
        self._settings = settings
        self._source = ""
        self._reread: Callable[[], Settings] | None = None
        self._clock = clock or SteadyClock()
        self._own = OwnSinks(recording_sink)
        self._routes = Routes(BUILT_IN)
        self._managers: dict[str, Manager] = {}
        self._parts: Runtime | None = None
        self._draining: Runtime | None = None
        self._starting: asyncio.Task[None] | None = None

    # -- what users call before it starts

    def route(self, path: str) -> Callable[[F], F]:
        """Register the handler of ``AGI(agi://host/path)``: async, or a plain def that runs in a worker thread.

        :raises ConfigError: that route has a handler already, or `path` is no route
        """
        if not isinstance(path, str):
            raise ConfigError(f"a route needs its path: @app.route({getattr(path, '__name__', 'survey')!r})")

        def keep(handler: F) -> F:
            self._routes.add(path, handler)
            return handler

        return keep

    def default(self, *wrong: object) -> Callable[[F], F]:
        """Register the handler of calls that no route matches: ``@app.default()``.

        :raises ConfigError: there is one already, or the parentheses are missing
        """
        if wrong:
            raise ConfigError("write @app.default(), with parentheses")

        def keep(handler: F) -> F:
            self._routes.set_default(handler)
            return handler

        return keep

    def sink(self, name: str, sink: AnySink, *, default: bool = False, loop: Where = "own") -> AnySink:
        """Register a sink under a name that survives a restart.

        An async sink of your own runs on a thread and event loop of its own, so that it cannot hold calls when it
        blocks. A sink with a client of the main loop (a `ClientSession`, a pool) runs on the main loop all the same,
        and the log says so.

        :param default: the sink gets every recording that names no other, like the sinks of the settings; otherwise
            only those that name it (``sink="crm"``)
        :param loop: ``main`` runs the sink on the main event loop, beside the calls: it must not block
        :raises ConfigError: the name is taken (a name of the settings: `start` raises)
        :raises BadArgument: no sink, no name, or `loop` is neither ``own`` nor ``main``
        """
        must_be_sink(sink)
        must_be_name(name)
        must_be_where(loop)
        if name in self._own.named:
            raise ConfigError(f"there is a sink {name!r} already")
        if self._parts is not None:
            registered = self._parts.registry.register(name, sink, loop=loop)
            if default:
                self._parts.sink_names.add_default(registered)
        self._own.named[name] = (sink, loop)
        if default:
            self._own.defaults.append(name)
        return sink

    def configure(self, settings: Settings, source: str = "", reread: Callable[[], Settings] | None = None) -> None:
        """Use these settings from the next `start` on. Handlers registered with `ami` apply to these Asterisks too.

        :param source: where the settings are from; logged once they are checked
        :param reread: reads them again, for `reload`
        :raises Error: the app is started
        :raises ConfigError: an Asterisk with registered handlers is missing in them
        """
        if self._parts is not None:
            raise Error("the app is started: stop it before it gets other settings")
        sections = {section.name: section for section in settings.asterisk}
        for name, manager in list(self._managers.items()):
            if name in sections:
                manager.aim(**_where(sections[name]))
            elif manager.event_names:
                known = ", ".join(sections) or "none"
                raise ConfigError(f"events of asterisk {name!r} are wanted, and there is none of that name: {known}")
            else:
                del self._managers[name]
        self._settings = settings
        self._source = source
        self._reread = reread

    @property
    def configured(self) -> bool:
        """Return whether the app was given settings, or has read them already."""
        return self._settings is not None

    @property
    def settings(self) -> Settings:
        """Return the settings. The first call reads them when none were given.

        :raises ConfigError: every fault of the file and the environment, one per line
        """
        if self._settings is None:
            self._reread = _read_again
            self._settings = load(discover())
        return self._settings

    def ami(self, name: str = "") -> Manager:
        """Return the AMI connection to that Asterisk, for callbacks and actions of your own. It connects when the app
        starts.

        :param name: `[[asterisk]] name`; may be left out when there is one
        :raises ConfigError: there is none of that name
        """
        known = [a.name for a in self.settings.asterisk]
        if not name and len(known) == 1:
            name = known[0]
        for section in self.settings.asterisk:
            if section.name == name:
                if name not in self._managers:
                    self._managers[name] = Manager(name=name, **_where(section))
                return self._managers[name]
        raise ConfigError(f"there is no [[asterisk]] named {name!r}; there are {', '.join(known) or 'none'}")

    # -- life

    @property
    def parts(self) -> Runtime:
        """Return the parts of the started app.

        :raises Error: the app is not started
        """
        if self._parts is None:
            raise Error("the app is not started")
        return self._parts

    async def start(self) -> None:
        """Start everything; returns when dialplans can call. After `stop` the app may be started again.

        Cancelling `start`, or calling `stop`, breaks the start off; nothing of it is left.

        :raises Error: the app is started already, or was stopped during the start
        :raises ConfigError: a port is taken, a secret cannot be read, ...
        :raises StoreError: the ledger cannot be opened
        """
        if self._starting is not None or self._parts is not None or self._draining is not None:
            raise Error("the app is started already")
        # a task of its own: `stop` cancels it, and not a caller that happens to wait for it
        self._starting = starting = asyncio.create_task(self._start(), name="fastagi-start")
        try:
            await starting
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            if asking is None or asking.cancelling():
                raise
            raise Error("the app was stopped while it was starting") from None
        finally:
            self._starting = None

    async def _start(self) -> None:
        managers = {section.name: self.ami(section.name) for section in self.settings.asterisk}
        parts = Runtime(self.settings, self._clock, managers, self._own, self.handle)
        if self._source:
            log.info("settings_read", file=self._source)
        try:
            await parts.start(lambda: self._serves(parts))
        except BaseException:
            # calls may have come already: let them finish
            await self._close(parts, DRAIN_SECONDS if parts.agi.sessions else 0.0)
            raise

    def _serves(self, parts: Runtime) -> None:
        """Note that calls come from now on."""
        self._parts = parts

    async def stop(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Finish what has begun, then close. Recordings of calls that are up go on in Asterisk.

        Until the app is closed, calls can start, stop, pause and resume recordings; all other requests are refused. A
        start that is under way is broken off.
        """
        starting = self._starting
        if starting is not None:
            if not starting.cancelling():  # cancelling a second time would break off the clean-up
                starting.cancel()
            await asyncio.wait({starting})
        if self._parts is not None:
            await self._close(self._parts, drain_seconds)

    async def _close(self, parts: Runtime, drain_seconds: float) -> None:
        self._parts, self._draining = None, parts
        try:
            await parts.stop(drain_seconds)
        finally:
            self._draining = None

    async def reload(self, settings: Settings | None = None) -> Reloaded:
        """Take over changed settings: tokens, log, required contexts and sinks. A served app does so on SIGHUP.

        :param settings: the new settings; None reads them again from where they came
        :returns: which keys were taken over, and which need a restart
        :raises Error: the app is not started
        :raises ConfigError: the settings have a fault, or came from the program and not from a file; nothing was
            changed
        """
        if settings is None:
            if self._reread is None:
                raise ConfigError("the program gave its settings itself: there is no file to read again")
            settings = await asyncio.to_thread(self._reread)
        done = reload_parts(self.parts, self.settings, settings)
        self._settings = done.settings
        log.info("settings_reloaded", file=self._source, taken=list(done.taken))
        if done.restart:
            log.warning("settings_need_restart", keys=list(done.restart), hint="these are as they were: restart")
        return done

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT, then drain. SIGHUP reloads the settings.

        Several apps may be served in one event loop. A thread other than the main one gets no signals; cancelling the
        call ends it there.

        :raises Error: a background task died; the service must not go on half alive
        """
        hung_up = asyncio.Event()
        with told_of_hangups(hung_up):  # handled also during start and drain: the signal must not kill the process
            await self._serve(hung_up)

    async def _serve(self, hung_up: asyncio.Event) -> None:
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        systemd = Systemd()
        fault = ""
        starting = asyncio.ensure_future(self.start())
        try:
            # a second signal, during the drain or a start that is broken off, ends the process at once
            with ended_by_signals(ended):
                # a database that does not answer holds the start for a while
                either: set[asyncio.Future[Any]] = {starting, ended}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    gc.freeze()
                    systemd.serving()
                    reloading = asyncio.create_task(reload_when(hung_up, self.reload), name="reload")
                    try:
                        fault = await self._ended_or_dead(ended)
                    finally:
                        reloading.cancel()
        finally:
            systemd.stopping()
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
            if self._parts is not None:
                log.info("stopping")
                await self.stop()
            systemd.close()
        if fault:
            raise Error(f"stopped because a background task died: {fault}")

    async def _ended_or_dead(self, ended: asyncio.Future[str]) -> str:
        """Wait for a signal, or for the death of a background task; return the fault, empty for a signal."""
        dying = asyncio.ensure_future(self.parts.recorder.death())
        try:
            await asyncio.wait({ended, dying}, return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else dying.result()
        finally:
            dying.cancel()

    def run(self, *, leave: bool = False) -> None:
        """Call `serve` on an event loop of its own (uvloop).

        :param leave: the process has nothing else to do: after the drain it is ended by force when a part of the user's
            does not end
        """
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = 1
            try:
                runner.run(self.serve())
                code = 0
            finally:
                if leave:
                    leave_within(LEAVE_SECONDS, code)

    async def handle(self, parts: Runtime, call: CallChannel) -> None:
        """Serve one call: give it its recorder, find its handler, run the handler.

        :param parts: of the server that it reached; the first call can come before `start` has returned
        """
        if not call.has_key(parts.agi_key):
            await _deny(parts, call, NO_KEY if call.keyless else WRONG_KEY)
            return
        if parts is self._draining and call.route.strip("/") not in record.WHILE_STOPPING:
            await call.fail("fastagi is being stopped: try again")
            return
        if self._routes.find(call.route) is ping.ping:  # answers every peer, and touches no call
            await ping.ping(call)
            return
        try:
            pbx = await parts.identity.pbx_of(call)
        except Error as exc:
            await _deny(parts, call, str(exc))
            return
        call.bind(parts.recorder, pbx, parts.sink_names)
        # this session's task has a context of its own: each log line written for it names the call
        structlog.contextvars.bind_contextvars(channel=call.channel, uniqueid=call.uniqueid, asterisk=pbx.name)
        handler = self._routes.find(call.route)
        if handler is None:
            known = ", ".join(self._routes)
            log.warning("route_unknown", route=call.route, channel=call.channel, uniqueid=call.uniqueid, known=known)
            await call.fail(f"fastagi has no route {call.route!r}")
            return
        if handler not in BUILT_IN.values():  # built-in handlers read it when they need it
            await _know_linkedid(call)
        if blocking(handler):
            context = contextvars.copy_context()
            result = await run_blocking(partial(context.run, handler), call, parts.threads)
            must_have_run(handler, result)
        else:
            await handler(call)
        await parts.recorder.before_leaving(pbx, call.uniqueid)


async def _deny(parts: Runtime, call: CallChannel, reason: str) -> None:
    parts.agi.note_denied(peer=call.peer, route=call.route, channel=call.channel, uniqueid=call.uniqueid, reason=reason)
    await record.deny(call, reason)


def _read_again() -> Settings:
    return load(discover())


async def _know_linkedid(call: CallChannel) -> None:
    """Read the linkedid from Asterisk: a session may be quicker than its channel's event, and without AMI there is
    none.
    """
    if not call.linkedid:
        with contextlib.suppress(FastAGIError, TimeoutError):
            async with asyncio.timeout(LINKEDID_SECONDS):
                await call.fetch_linkedid()


def _where(section: AsteriskSettings) -> dict[str, Any]:
    """Return the arguments with which a `Manager` connects to that Asterisk."""
    return {
        "host": section.host,
        "port": section.port,
        "username": section.username,
        "secret": section.password(),
        "tls": tls.trusting(section.tls_ca_file) if section.tls else False,
    }
