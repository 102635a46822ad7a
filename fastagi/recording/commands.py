"""Commands from outside the call: start, stop, pause, ... by channel or by recording, over any Asterisk.

The one door for who has no AGI session: UserEvents, the HTTP API, the console. Parameters come typed (whoever reads
text turns it into values first); what to do is decided by the recorder, nothing here knows a state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastagi.domain.recording import Recording
from fastagi.domain.spec import with_defaults
from fastagi.domain.states import Phase
from fastagi.errors import AsteriskDown, BadArgument, Error, FastAGIError, Hangup
from fastagi.recording.asterisk.call_state import CallState, ask_state
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.occupation import in_dialplan
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.starting import Request
from fastagi.recording.parameters import spec_from
from fastagi.recording.service import RecordingService
from fastagi.recording.sinks import SinkNames

_NAME = re.compile(r"[\w.:@+-]{0,64}")


class Commands:
    """Commands about recordings, by channel or recording id.

    A channel is given by name (`PJSIP/100-00000001`) or uniqueid; `asterisk` says on which PBX, and may be left out
    where only one has such a channel. All methods raise alike:

    :raises Error: there is no such channel or recording, or it is not in a state for that
    :raises BadArgument: a parameter is wrong; nothing was sent
    :raises Hangup: the channel went while it was commanded
    :raises AsteriskError: Asterisk cannot be reached, or refused
    :raises StoreError: the ledger cannot be asked
    """

    def __init__(self, recorder: RecordingService, sinks: SinkNames) -> None:
        self._recorder = recorder
        self._sinks = sinks

    async def start_on_channel(
        self,
        channel: str,
        filename: str = "",
        arguments: Mapping[str, Any] | None = None,
        *,
        asterisk: str = "",
        recorder: str = "",
        sink: str | None = None,
        mid_call: bool = True,
    ) -> Recording:
        """Start to record a channel; the settings' defaults fill what `arguments` leave out.

        :param filename: as for `record()`; empty for one of our own making
        :param arguments: parameters of `RecordingSpec` by name, typed
        :param recorder: which of several recordings of that call; empty for the first
        :param sink: name of the sink that gets it; None for the app's defaults
        :param mid_call: whoever commands from outside mostly finds people talking, so it is allowed; False refuses a
            channel that is bridged, in a conference, on hold music or playing, as the seed does
        :returns: the recording: it runs, or it FAILED and `error` says why
        """
        pbx, live = self.channel(channel, asterisk)
        try:
            recording = await self._start(pbx, live, filename, arguments or {}, recorder, sink, mid_call)
        except Hangup:
            raise
        except FastAGIError as exc:
            self._recorder.note_refused(pbx.name, live.uniqueid, str(exc))
            raise
        if recording.phase is Phase.FAILED:
            self._recorder.note_refused(pbx.name, live.uniqueid, recording.error)
        return recording

    async def _start(
        self,
        pbx: Pbx,
        live: LiveChannel,
        filename: str,
        arguments: Mapping[str, Any],
        recorder: str,
        sink: str | None,
        mid_call: bool,
    ) -> Recording:
        spec = spec_from(with_defaults(self._recorder.defaults, arguments))
        if not _NAME.fullmatch(recorder):
            raise BadArgument(f"recorder={recorder[:80]!r} must be at most 64 letters, digits and . : @ + - _")
        state = pbx.call_state(live.uniqueid)
        if state is not CallState.UP:  # whoever commands may know of the answer before its event reaches us
            state = await ask_state(pbx, live.uniqueid)
        if state.over:
            raise Hangup(f"the channel {live.name} has hung up")
        if state is not CallState.UP:
            raise Error(f"the channel {live.name} is not answered: answer it before recording")
        busy = "" if mid_call else live.busy_with() or await in_dialplan(pbx, live.name)
        if busy:
            raise Error(f"the channel {live.name} is {busy}: pass mid_call=yes to record it all the same")
        job = await self._recorder.start(
            Request(
                pbx=pbx,
                channel=live.name,
                uniqueid=live.uniqueid,
                linkedid=live.linkedid,
                recorder=recorder,
                filename=filename,
                spec=spec,
                caller=live.caller,
                called=live.called,
                fields=name_fields(pbx, live),
                sinks=self._sinks.names(sink),
            )
        )
        return job.recording

    async def stop(self, job: ActiveRecording, *, wait: bool = True) -> Recording:
        """Stop it (cause ABORTED). Idempotent.

        :param wait: return when the finished file is there, else when the decision is on disk
        """
        if wait:
            await self._recorder.stop(job)
        else:
            await self._recorder.request_stop(job)
        return job.recording

    async def pause(self, job: ActiveRecording, seconds: float | None = None) -> Recording:
        """Silence from now on; also when it was paused. :param seconds: resume by itself after so many"""
        await self._recorder.pause(job, seconds)
        return job.recording

    async def resume(self, job: ActiveRecording) -> Recording:
        """Record again; also when it was not paused."""
        await self._recorder.resume(job)
        return job.recording

    async def mute(self, job: ActiveRecording, direction: str = "received", on: bool = True) -> Recording:
        """Silence one side (``received``, ``sent``) or ``both``; `on` False undoes it."""
        await self._recorder.mute(job, direction, on)
        return job.recording

    def of_id(self, recording_id: str) -> ActiveRecording:
        """The open recording of that id.

        :raises Error: it is not open (ended long ago, or never was)
        """
        job = self._recorder.get(recording_id)
        if job is None:
            raise Error(f"recording {recording_id[:80]!r} does not run here")
        return job

    def on_channel(self, channel: str, asterisk: str = "", recorder: str = "") -> ActiveRecording:
        """The open recording of a channel: that recorder's; without a name the first one's, else the only one.

        :raises Error: none runs, or several do and none is the first
        """
        pbx, live = self.channel(channel, asterisk)
        job = self._recorder.current((pbx.name, live.uniqueid, recorder))
        if job is not None:
            return job
        running = [
            j
            for j in self._recorder.on_channel(pbx.name, live.uniqueid)
            if j.phase not in (Phase.CLOSING, Phase.FINISHING)
        ]
        if recorder or not running:
            raise Error(f"there is no recording {recorder + ' ' if recorder else ''}on channel {live.name}")
        if len(running) > 1:
            names = ", ".join(sorted(j.recording.recorder for j in running))
            raise Error(f"several recordings run on channel {live.name}: say which recorder: {names}")
        return running[0]

    def channel(self, channel: str, asterisk: str = "") -> tuple[Pbx, LiveChannel]:
        """The live channel of that name or uniqueid, and its PBX.

        :raises Error: there is none, or on several PBXs; :raises AsteriskDown: the PBX it may be on is not connected
        """
        if not channel:
            raise BadArgument("channel is missing: its name or uniqueid")
        pbxs = self._recorder.pbxs
        if asterisk and asterisk not in pbxs:
            raise BadArgument(f"asterisk={asterisk[:80]!r} is not known: there are {', '.join(pbxs)}")
        asked = [pbxs[asterisk]] if asterisk else list(pbxs.values())
        found = [(pbx, live) for pbx in asked if pbx.up and (live := pbx.channels.find(channel)) is not None]
        if len(found) == 1:
            return found[0]
        if found:
            raise Error(f"channel {channel[:80]!r} is on {', '.join(p.name for p, _ in found)}: say which asterisk")
        down = [pbx.name for pbx in asked if not pbx.up]
        if down:
            raise AsteriskDown(f"no manager connection to {', '.join(down)} now")
        raise Error(f"there is no channel {channel[:80]!r}")


def name_fields(pbx: Pbx, live: LiveChannel) -> dict[str, str]:
    """Values of `{field}` in a file name, the same as `CallChannel.name_fields`."""
    return {
        "uniqueid": live.uniqueid,
        "linkedid": live.linkedid,
        "caller": live.caller,
        "caller_name": live.caller_name,
        "extension": live.called,
        "context": live.context,
        "channel": live.name,
        "asterisk": pbx.name,
    }
