"""One answer to "what is this call's state?", for whoever asks: a start, a hangup, a restart, the sweep.

`call_state` reads what the channel table knows and is pure. `Pbx.call_state` gives it the table and the connection.
`ask_state` asks Asterisk through the manager interface, for what its events have not told yet. What a call's own AGI
session tells beside them is asked by `fastagi.recording.recorded_call.ask_session`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from fastagi.ami import actions
from fastagi.errors import ActionRefused
from fastagi.recording.asterisk.channel_table import LiveChannel

if TYPE_CHECKING:
    from fastagi.recording.asterisk.pbx import Pbx

CLOCK_SLACK_SECONDS = 3.0
"""CoreShowChannels gives whole seconds of duration, and the two clocks are one machine's or NTP's."""


class CallState(Enum):
    """State of a call, as its channel has it.

    `HANGUP_REQUESTED`: nobody is heard any more, but Asterisk keeps the channel for an AGI session or a hangup handler.
    `UNKNOWN`: there is no connection to Asterisk, and nothing else tells.
    """

    UP = "up"
    NOT_ANSWERED = "not answered"
    HANGUP_REQUESTED = "hangup requested"
    GONE = "gone"
    UNKNOWN = "unknown"

    @property
    def over(self) -> bool:
        """The call has ended, though its channel may wait."""
        return self in (CallState.HANGUP_REQUESTED, CallState.GONE)

    @property
    def there(self) -> bool:
        """Asterisk has the channel."""
        return self in (CallState.UP, CallState.NOT_ANSWERED, CallState.HANGUP_REQUESTED)


def call_state(channel: LiveChannel | None, in_step: bool, since: float | None = None) -> CallState:
    """Return the state of a call by what the channel table knows.

    :param channel: the table's channel of that uniqueid; None where it has none
    :param in_step: the table follows Asterisk's events now
    :param since: unix seconds at which the call was there: a restarted Asterisk uses uniqueids again, and a younger
        channel is another call's; None where nothing is to be compared
    """
    if not in_step:
        return CallState.UNKNOWN
    if channel is None or (since is not None and channel.since > since + CLOCK_SLACK_SECONDS):
        return CallState.GONE
    if channel.hangup_requested:
        return CallState.HANGUP_REQUESTED
    return CallState.UP if channel.up else CallState.NOT_ANSWERED


def says_no_channel(refusal: ActionRefused) -> bool:
    """Return whether Asterisk refuses because it has no such channel."""
    return "no such channel" in str(refusal).lower()


async def ask_state(pbx: Pbx, uniqueid: str, *, timeout: float | None = None) -> CallState:
    """Return the state of a call by Asterisk's own word, asked now: events may be late, or come no more.

    A channel that the table does not have is not asked for.

    :param timeout: seconds for the answer; None for the manager's own limit
    :raises AsteriskError: there is no answer
    """
    known, channel = pbx.call_state(uniqueid), pbx.channels.get(uniqueid)
    if channel is None or not known.there or pbx.manager is None:
        return known
    name = channel.name
    try:
        row = await actions.status(pbx.manager, name, timeout=timeout)
    except ActionRefused as exc:
        renamed = channel.name != name  # its name changed under the question
        if says_no_channel(exc) and not renamed:
            return CallState.GONE
        return pbx.call_state(uniqueid)  # an answer all the same: the events before it have come
    now = pbx.call_state(uniqueid)
    if not now.there or now is CallState.HANGUP_REQUESTED:
        return now
    return CallState.UP if row.up else CallState.NOT_ANSWERED
