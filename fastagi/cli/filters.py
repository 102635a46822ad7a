"""Options that choose recordings, shared by all commands that take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastagi.cli.moments import moment
from fastagi.domain import states
from fastagi.errors import BadArgument

if TYPE_CHECKING:
    from fastagi.store.queries.catalogue import RecordingFilter

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Ids, their first letters, files, names or uniqueids.", show_default=False),
]
Since = Annotated[
    str, typer.Option(metavar="WHEN", help="From then on: 2026-11-20, 14:05, friday, 36h ago.", show_default=False)
]
Until = Annotated[str, typer.Option(metavar="WHEN", help="Before then.", show_default=False)]
Caller = Annotated[str, typer.Option(metavar="NUMBER", help="Callers that begin so.", show_default=False)]
Called = Annotated[str, typer.Option(metavar="NUMBER", help="Called numbers that begin so.", show_default=False)]
Search = Annotated[
    str, typer.Option(metavar="TEXT", help="In name, file, numbers, channels and ids of the call.", show_default=False)
]
State = Annotated[str, typer.Option(metavar="STATE", help="recording, idle or error.", show_default=False)]
Cause = Annotated[
    str, typer.Option(metavar="CAUSE", help="hangup, aborted, silence, size, timeout or error.", show_default=False)
]
Uniqueid = Annotated[str, typer.Option(metavar="UNIQUEID", help="Of that channel.", show_default=False)]
Linkedid = Annotated[
    str, typer.Option(metavar="LINKEDID", help="Of that call, on whichever of its channels.", show_default=False)
]
Channel = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Of channels that begin so, or that talked with one: PJSIP/agent1.", show_default=False
    ),
]
Asterisk = Annotated[str, typer.Option(metavar="NAME", help="Of that [[asterisk]].", show_default=False)]
Limit = Annotated[int, typer.Option(min=0, metavar="N", help="At most so many; 0 for all.")]


def wanted(
    *,
    since: str = "",
    until: str = "",
    caller: str = "",
    called: str = "",
    channel: str = "",
    state: str = "",
    cause: str = "",
    **exact: Any,
) -> RecordingFilter:
    """Return the filter of these options.

    :raises BadArgument: an unknown time, state or cause
    """
    from fastagi.store.queries.catalogue import RecordingFilter

    return RecordingFilter(
        since=moment("--since", since),
        until=moment("--until", until),
        caller_prefix=caller,
        called_prefix=called,
        channel_prefix=channel,
        state=_one_of("--state", state, states.State),
        cause=_one_of("--cause", cause, states.Cause),
        **exact,
    )


def _one_of(option: str, text: str, known: type[states.State] | type[states.Cause]) -> str:
    if not text:
        return ""
    for member in known:
        if text.upper() == member.value:
            return member.value
    raise BadArgument(f"{option} {text!r}: use one of {', '.join(m.value.lower() for m in known)}")
