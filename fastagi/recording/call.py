"""`CallChannel`: what a handler gets. An AGI channel whose call can be recorded."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from fastagi.agi import Channel
from fastagi.domain.formats import FORMATS
from fastagi.domain.spec import with_defaults
from fastagi.domain.states import State
from fastagi.errors import BadArgument, Error
from fastagi.recording.asterisk.channel_table import called_number
from fastagi.recording.asterisk.occupation import plays
from fastagi.recording.parameters import spec_from
from fastagi.recording.recorded_call import ask_session, must_not_be_over
from fastagi.recording.whole_call_recorder import UASWholeCallFileRecorder

if TYPE_CHECKING:
    from fastagi.domain.recording import Recording
    from fastagi.recording.asterisk.pbx import Pbx
    from fastagi.recording.service import RecordingService
    from fastagi.recording.sinks import SinkNames

MOST_RECORDERS = 16
"""Recorders one call can have side by side; each is a MixMonitor thread in Asterisk."""

RECORDER_NAME = re.compile(r"[\w.:@+-]{0,64}")


class CallChannel(Channel):
    """One call. Its methods are the AGI commands; `WholeCallRecorder` records it.

    :ivar pbx: the Asterisk it is on
    :ivar over: set when this session was told of a hangup, or ended by any doing but the handler's
    """

    pbx: Pbx
    over: asyncio.Event
    _recorder: RecordingService
    _sinks: SinkNames

    def bind(self, recorder: RecordingService, pbx: Pbx, sinks: SinkNames) -> None:
        """Give it its recorder. Called by the app before the handler runs."""
        self._recorder = recorder
        self.pbx = pbx
        self._sinks = sinks
        self._recorders: dict[str, UASWholeCallFileRecorder] = {}
        live = pbx.live_channel(self.uniqueid)
        if live is not None:
            self.linkedid = live.linkedid
        self.over = asyncio.Event()
        self.on_hangup(self._told_of_hangup)
        recorder.reached_by(pbx.name, self.uniqueid, self)

    def _told_of_hangup(self) -> None:
        self.over.set()
        self._recorder.perhaps_over(self.pbx.name, self.uniqueid, self.has_ended)

    async def has_ended(self) -> bool:
        """Return whether the call is over, and not only this AGI session. A redirected channel's session is told HANGUP
        too, and a lost connection says nothing of the call: False until there is evidence (`ask_session`).
        """
        return (await ask_session(self, told=True)).over

    @property
    def WholeCallRecorder(self) -> UASWholeCallFileRecorder:
        """The call's recorder (seed)."""
        return self.recorder("")

    def recorder(self, name: str = "") -> UASWholeCallFileRecorder:
        """Another recorder of the same call, by name: several recordings can run side by side.

        :raises Error: more than 16 on one call, or a name that is too long or has other characters
        """
        found = self._recorders.get(name)
        if found is None:
            if not RECORDER_NAME.fullmatch(name):
                raise BadArgument(f"recorder={name[:80]!r} must be at most 64 letters, digits and . : @ + - _")
            if len(self._recorders) >= MOST_RECORDERS:
                raise Error(f"a call can have {MOST_RECORDERS} recorders at most")
            found = self._recorders[name] = UASWholeCallFileRecorder(self._recorder, self, name)
        return found

    async def record_start(self, name: str = "", fmt: str = "wav", *, sink: Any | None = None, **options: Any) -> str:
        """Start recording the call (seed: recording-sink).

        :param name: the recording's name and file name; empty for one of our own
        :param fmt: ``wav`` (the settings' default codec if it goes into WAV, else alaw), or any file_format
        :param sink: who gets this one, instead of the app's sinks
        :param options: parameters of `WholeCallRecorder.start`
        :returns: the recording's name
        :raises Error: one is running already, or Asterisk could not record
        """
        must_not_be_over(self)
        defaults = self._recorder.defaults
        if fmt != "wav":
            if fmt not in FORMATS:
                raise BadArgument(f"fmt={fmt!r} is not known: use wav or one of {', '.join(FORMATS)}")
            options["file_format"] = fmt
        elif "file_format" in defaults and "file_format" not in options:
            default = FORMATS.get(defaults["file_format"])
            if default is not None and default.container != "wav":
                options["file_format"] = "alaw"
        options = with_defaults(defaults, options)
        recorder = self.WholeCallRecorder
        cipher = options.pop("cipher", None)
        mid_call = options.pop("mid_call", False)
        spec_from(options)
        job = await recorder._start(name, options, cipher, mid_call, sink)
        if job.recording.error:
            raise Error(job.recording.error)
        return job.recording.name

    async def record_stop(self) -> str | None:
        """Stop the recording; returns when the file is there and its deliveries are on disk.

        Also after a hangup. Two at once stop it once.

        :returns: the recording's name; None when none runs: there was none, or it was completed before
        :raises Error: the file could not be finished, or Asterisk not be told to stop within 10 s: then it does as soon
            as it can be, at the latest when the call ends (its text says what to do)
        """
        key = (self.pbx.name, self.uniqueid, "")
        job = self._recorder.current(key)
        if job is None:
            return None
        if (await ask_session(self, recorded=True)).over:
            await self._recorder.hung_up(job)  # a handler's own clean-up is not what ended the call
        else:
            await self._recorder.stop(job)
        if job.recording.state is State.ERROR:
            raise Error(job.recording.error)
        return job.recording.name

    def start_refused(self, error: str) -> None:
        """A recording was asked for and not begun: where the call must be recorded, its verdict says why."""
        self._recorder.note_refused(self.pbx.name, self.uniqueid, error)

    @property
    def defaults(self) -> dict[str, Any]:
        """`[recordings.defaults]` of the settings."""
        return dict(self._recorder.defaults)

    async def remembered(self, name: str = "") -> Recording | None:
        """The call's open recording, else its last one, asked of the ledger if need be."""
        return await self._recorder.remembered((self.pbx.name, self.uniqueid, name))

    def knows_of(self, recording: Recording) -> None:
        """The id of that recording was left in the channel: another start of it is no repetition of a lost one."""
        job = self._recorder.get(recording.id)
        if job is not None:
            job.told = True

    @property
    def playing(self) -> bool:
        """True while a command of this session plays to the caller, or tones that one left sounding do."""
        return self.tones or plays(self.current_command or "")

    @property
    def played_until(self) -> float:
        """Monotonic seconds at which the last command that played to the caller ended; 0 for none."""
        name, ended = self.last_long_command
        return ended if plays(name) else 0.0

    @property
    def called(self) -> str:
        """The number that was dialled: the extension, or, in a subroutine's ``s``, what the call began with."""
        live = self.pbx.channels.get(self.uniqueid)
        first = live.first_exten if live is not None else ""
        return called_number(self.extension, first, self.env.get("agi_dnid", ""))

    def name_fields(self) -> dict[str, str]:
        """Values of `{field}` in a file name."""
        return {
            "uniqueid": self.uniqueid,
            "linkedid": self.linkedid,
            "caller": self.caller,
            "caller_name": self.caller_name,
            "extension": self.called,
            "context": self.context,
            "channel": self.channel,
            "asterisk": self.pbx.name,
        }

    def sink_names(self, sink: Any | None) -> tuple[str, ...]:
        """The names under which deliveries to `sink` are kept; the app's default sinks for None."""
        return self._sinks.names(sink)

    def release_sinks(self, names: tuple[str, ...]) -> None:
        """The recording that these were taken for does not come about."""
        self._sinks.release(names)
