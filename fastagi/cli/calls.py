"""`fastagi calls …`: the answered calls that had to be recorded (`[recordings] required`), and whether each was."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from fastagi.cli.configuration import Config, ledger_of, settings_for
from fastagi.cli.filters import Asterisk, Limit, Since, Until
from fastagi.cli.moments import moment
from fastagi.cli.output import AsJson, console, length, print_json, show_table, when
from fastagi.cli.running import run
from fastagi.web import serializers

if TYPE_CHECKING:
    from fastagi.settings import Settings
    from fastagi.store.queries.calls import AnsweredCall

calls = typer.Typer(no_args_is_help=True, help="Calls that had to be recorded, and whether they were.")

PAGE = 500


async def _pages(
    settings: Settings, since: float | None, until: float | None, asterisk: str, limit: int = 0
) -> list[AnsweredCall]:
    from fastagi.store.queries import calls as units

    found: list[AnsweredCall] = []
    cursor: int | None = None
    async with ledger_of(settings) as ledger:
        while True:
            count = min(PAGE, limit - len(found)) if limit else PAGE
            page, cursor = await ledger.read(
                units.page, since=since, until=until, asterisk=asterisk, cursor=cursor, limit=count
            )
            found += page
            if cursor is None or (limit and len(found) >= limit):
                return found


def _verdict(call: AnsweredCall) -> str:
    return call.verdict or ("up" if call.ended_at is None else "not judged yet")


def _show(found: list[AnsweredCall], empty: str) -> None:
    show_table(
        ("answered", "asterisk", "caller", "called", "length", "context", "verdict", "recording", "uniqueid", "reason"),
        [
            (
                when(c.answered_at),
                c.asterisk,
                c.caller,
                c.called,
                length(c.ended_at - c.answered_at if c.ended_at is not None else None),
                c.context,
                _verdict(c),
                c.recording_id,
                c.uniqueid,
                c.reason,
            )
            for c in found
        ],
        right=("length",),
        empty=empty,
    )


@calls.command("list")
def list_(
    config: Config = None,
    since: Since = "",
    until: Until = "",
    asterisk: Asterisk = "",
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List answered calls that had to be recorded, newest first."""
    settings = settings_for(config)
    begin, end = moment("--since", since), moment("--until", until)
    found = run(_pages(settings, begin, end, asterisk, limit))
    if as_json:
        print_json([serializers.call(c) for c in found])
    else:
        _show(found, "no such calls; [recordings] required says which contexts are followed")


@calls.command(short_help="Which calls had to be recorded and were not.")
def check(
    config: Config = None,
    since: Annotated[str, typer.Option(metavar="WHEN", help="Answered from then on.")] = "24h",
    until: Until = "",
    asterisk: Asterisk = "",
    as_json: AsJson = False,
) -> None:
    """List ended calls that had to be recorded and were not, or not whole. Exit code 1 when there are any."""
    from fastagi.store.queries.calls import RECORDED

    settings = settings_for(config)
    begin, end = moment("--since", since), moment("--until", until)
    found = [c for c in run(_pages(settings, begin, end, asterisk)) if c.required and c.ended_at is not None]
    bad = [c for c in found if c.verdict not in (RECORDED, "")]
    counts = Counter(_verdict(c) for c in found)
    if as_json:
        print_json({"ok": not bad, "counts": dict(counts), "calls": [serializers.call(c) for c in bad]})
    else:
        if bad:
            _show(bad, "")
        told = ", ".join(f"{count} {verdict.replace('_', ' ')}" for verdict, count in sorted(counts.items()))
        words = told or "no calls that had to be recorded"
        if not settings.recordings.required and not found:
            words += "; [recordings] required is empty: nothing is followed"
        console(stderr=True).print(words)
    if bad:
        raise typer.Exit(1)
