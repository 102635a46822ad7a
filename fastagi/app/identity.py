"""Finds the Asterisk that an AGI session comes from, and checks that the session's channel is the one that it names.

Any peer that reaches the AGI port can send any header block. Its channel and uniqueid are compared with the channel
table of that Asterisk. Channels that the table does not have (a call can be younger than its event) are asked of
Asterisk itself. When two Asterisks have a channel of that name and uniqueid, the session proves its origin: a variable
that is set through the session is read on both. Without a manager connection nothing can be checked.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from enum import Enum

import structlog

from fastagi.ami import actions
from fastagi.domain.naming import well_formed
from fastagi.errors import ActionRefused, AsteriskError, BadArgument, Error, FastAGIError
from fastagi.recording.asterisk.call_state import says_no_channel
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.call import CallChannel

log = structlog.get_logger(__name__)

ASK_SECONDS = 2.0
"""Seconds for one query. Asterisk answers in a millisecond; a manager that never answers holds a call no longer."""

PROOF = "FASTAGI_PROOF"
"""Channel variable by which a session proves its Asterisk."""


class Answer(Enum):
    """The answer of one Asterisk about a session's channel."""

    HAS = "has"
    HAS_NOT = "has not"
    SILENT = "silent"


class Identity:
    """Assigns sessions to the configured Asterisks.

    :param pbxs: by `[[asterisk]] name`; at least one
    """

    def __init__(self, pbxs: Mapping[str, Pbx]) -> None:
        self._pbxs = pbxs
        self._warned: set[frozenset[str]] = set()
        if len(pbxs) > 1:
            for pbx in pbxs.values():
                pbx.on_synced(lambda *_: self._warn_of_twins())

    async def pbx_of(self, call: CallChannel) -> Pbx:
        """Return the Asterisk of that session: the one it names with ``asterisk=``, else the one that has its channel.

        :raises Error: none has the channel, or several do and the session cannot be told apart
        """
        named = self._pbxs.get(call.params.get("asterisk", ""))
        candidates = [named] if named is not None else list(self._pbxs.values())
        having = [pbx for pbx in candidates if pbx.up and _in_table(pbx, call)]
        unchecked = [pbx for pbx in candidates if not pbx.up]
        asked = [pbx for pbx in candidates if pbx.up and pbx not in having] if not having else []
        if asked:
            answers = await asyncio.gather(*(_ask(pbx, call) for pbx in asked))
            having = [pbx for pbx, answer in zip(asked, answers, strict=True) if answer is Answer.HAS]
            unchecked += [pbx for pbx, answer in zip(asked, answers, strict=True) if answer is Answer.SILENT]
        possible = [*having, *unchecked]
        if not possible:
            names = " and ".join(pbx.name for pbx in candidates)
            raise Error(f"{names}: no channel {call.channel[:80]!r} has the uniqueid {call.uniqueid[:80]!r}")
        if len(possible) == 1:
            return possible[0]
        return await self._told_apart(call, having, unchecked)

    async def _told_apart(self, call: CallChannel, having: list[Pbx], unchecked: list[Pbx]) -> Pbx:
        proved = await _proved(call, having)
        if proved is not None:
            return proved
        left = unchecked
        for narrower in (
            [pbx for pbx in left if pbx.system and call.uniqueid.startswith(pbx.system + "-")],
            [pbx for pbx in left if call.peer in pbx.addresses],
        ):
            left = narrower or left
        if len(left) == 1:
            return left[0]
        names = " or ".join(pbx.name for pbx in left or having)
        raise Error(
            f"the call can be on {names}: say asterisk=NAME in the AGI line, or give each Asterisk a systemname in "
            "asterisk.conf"
        )

    def _warn_of_twins(self) -> None:
        for one, other in twins([(p.name, p.system, p.addresses) for p in self._pbxs.values() if p.up and p.major]):
            pair = frozenset((one, other))
            if pair not in self._warned:
                self._warned.add(pair)
                log.warning("asterisks_not_told_apart", asterisks=sorted(pair), hint=TWINS_REMEDY)


TWINS_REMEDY = "give each a systemname in asterisk.conf and restart it, or say asterisk=NAME in each AGI line"


def twins(found: list[tuple[str, str, frozenset[str]]]) -> list[tuple[str, str]]:
    """Return the pairs of names whose calls can have equal uniqueids and come from one address.

    :param found: name, system name and addresses of each Asterisk
    """
    return [
        (name, other)
        for number, (name, system, addresses) in enumerate(found)
        for other, its_system, its_addresses in found[number + 1 :]
        if system == its_system and addresses & its_addresses
    ]


def _in_table(pbx: Pbx, call: CallChannel) -> bool:
    live = pbx.channels.get(call.uniqueid)
    return live is not None and live.name in (call.channel, well_formed(call.channel))


async def _ask(pbx: Pbx, call: CallChannel) -> Answer:
    """Query Asterisk for a channel that the table does not have: it may be younger, or renamed by now."""
    assert pbx.manager is not None
    try:
        row = await actions.status(pbx.manager, call.channel, timeout=ASK_SECONDS)
    except BadArgument:
        return Answer.HAS_NOT
    except ActionRefused as exc:
        if says_no_channel(exc):
            return Answer.HAS_NOT
        known = pbx.channels.get(call.uniqueid)
    except AsteriskError:
        known = pbx.channels.get(call.uniqueid)
    else:
        same = (row.channel, row.uniqueid) == (well_formed(call.channel), well_formed(call.uniqueid))
        return Answer.HAS if same else Answer.HAS_NOT
    # no answer: a uniqueid that is known as another channel's is refused, an unknown one may be true
    return Answer.SILENT if known is None else Answer.HAS_NOT


async def _proved(call: CallChannel, having: list[Pbx]) -> Pbx | None:
    """Return the Asterisk on whose channel a variable appears that is set through the session; None when it is none."""
    token = secrets.token_hex(16)

    async def shows(pbx: Pbx) -> bool:
        assert pbx.manager is not None
        try:
            return await actions.getvar(pbx.manager, PROOF, call.channel, timeout=ASK_SECONDS) == token
        except (AsteriskError, BadArgument):
            return False

    if not having:
        return None
    try:
        async with asyncio.timeout(ASK_SECONDS):
            await call.set_variable(PROOF, token)
    except (TimeoutError, FastAGIError):
        return None
    shown = await asyncio.gather(*(shows(pbx) for pbx in having))
    return next((pbx for pbx, there in zip(having, shown, strict=True) if there), None)
