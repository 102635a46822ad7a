"""`fastagi deliveries …`: deliveries that arrived, that wait, and that were given up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from fastagi.cli.configuration import Config, ledger_of, settings_for
from fastagi.cli.exits import FAILED, complain
from fastagi.cli.filters import Limit
from fastagi.cli.output import AsJson, console, print_json, show_table, when
from fastagi.cli.running import run
from fastagi.domain.delivery import Delivery, DeliveryStatus, SinkRefusals
from fastagi.domain.timestamps import rfc3339
from fastagi.errors import BadArgument, StoreDown, StoreError
from fastagi.web import serializers

if TYPE_CHECKING:
    from fastagi.store.offline import OfflineLedger
    from fastagi.store.queries.deliveries import Due

deliveries = typer.Typer(no_args_is_help=True, help="See deliveries, and have them tried again.")

PAGE = 500

Status = Annotated[
    str, typer.Option(metavar="STATUS", help="waiting, running, delivered, dead or parked.", show_default=False)
]
Sink = Annotated[str, typer.Option(metavar="NAME", help="To that sink.", show_default=False)]


def _status(text: str) -> str:
    known = [status.value for status in DeliveryStatus]
    if text and text.lower() not in known:
        raise BadArgument(f"--status {text!r}: use one of {', '.join(known)}")
    return text.lower()


async def _pages(ledger: OfflineLedger, status: str, sink: str, recording: str, limit: int) -> list[Delivery]:
    from fastagi.store.queries import deliveries as units

    found: list[Delivery] = []
    cursor: str | None = None
    while True:
        count = min(PAGE, limit - len(found)) if limit else PAGE
        page, cursor = await ledger.read(
            units.page, status=status, sink=sink, recording_id=recording, cursor=cursor, limit=count
        )
        found += page
        if cursor is None or (limit and len(found) >= limit):
            return found


@deliveries.command("list")
def list_(
    config: Config = None,
    status: Status = "",
    sink: Sink = "",
    recording: Annotated[str, typer.Option(metavar="ID", help="Of that recording.", show_default=False)] = "",
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first."""
    settings = settings_for(config)
    status = _status(status)

    async def work() -> tuple[list[Delivery], dict[str, SinkRefusals]]:
        from fastagi.store.queries import holds

        async with ledger_of(settings) as ledger:
            known = await ledger.read(holds.known)
            held = {name: refusals for name, refusals in known.items() if refusals.held}
            return await _pages(ledger, status, sink, recording, limit), held

    found, held = run(work())
    if as_json:
        print_json([serializers.delivery(d, held) for d in found])
        return
    show_table(
        ("id", "made", "sink", "status", "attempts", "next", "recording", "last error"),
        [
            (
                d.id,
                when(d.created_at),
                d.sink,
                d.status.value,
                d.attempts,
                when(d.next_at) if d.status is DeliveryStatus.WAITING else "",
                d.recording_id,
                serializers.delivery_hint(d, held) or d.last_error,
            )
            for d in found
        ],
        right=("attempts",),
        empty="no such deliveries",
    )
    for name, refusals in held.items():
        console(stderr=True).print(f"sink {name}: {refusals.hint}")
    if limit and len(found) == limit:
        console(stderr=True).print(f"the newest {limit}; --limit 0 shows all", style="dim")


@deliveries.command(short_help="Have dead, parked or waiting ones tried again now.")
def retry(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Dead, parked or waiting deliveries.", show_default=False),
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead ones, instead of ids.")] = False,
    parked: Annotated[bool, typer.Option("--parked", help="All parked ones, instead of ids.")] = False,
    sink: Sink = "",
    to: Annotated[
        str, typer.Option(metavar="NAME", help="Another sink gets them, dead or parked ones.", show_default=False)
    ] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Have deliveries tried again now: a dead or parked one gets a new retry period, a waiting one waits no longer.

    A running server takes them up within seconds. Exit code 1 when one of them cannot be tried again.
    """
    if [bool(ids), dead, parked].count(True) != 1:
        raise BadArgument("deliveries retry: give either ids, or --dead, or --parked for all of those")
    if ids and sink:
        raise BadArgument(
            "--sink: chooses among all dead or parked ones; ids say themselves which; --to is another sink"
        )
    from fastagi.store.queries import deliveries as units
    from fastagi.store.queries import servers

    settings = settings_for(config)
    faults: list[str] = []

    async def work() -> list[Due]:
        due: list[Due] = []
        async with ledger_of(settings) as ledger:
            chosen = list(ids or ())
            if dead or parked:
                status = DeliveryStatus.DEAD if dead else DeliveryStatus.PARKED
                chosen = await ledger.read(units.to_revive, status, sink)
            there = await ledger.read(servers.sinks_served, time.time(), servers.SILENT_SECONDS)
            # a later server will have these sinks, or more
            served = there or {section.name for section in settings.sinks}
            for each in chosen:
                try:
                    due.append(
                        await ledger.run(units.requeue, each, time.time(), to=to, served=served, all_known=bool(there))
                    )
                except StoreDown:
                    raise
                except StoreError as exc:
                    faults.append(str(exc))
        return due

    due = run(work())
    if as_json:
        print_json([{"id": d.id, "sink": d.sink, "status": "waiting", "next_at": rfc3339(d.next_at)} for d in due])
    else:
        for d in due:
            console().print(f"{d.id} to {d.sink} is due now")
        if not due and not faults:
            console(stderr=True).print(f"no {'dead' if dead else 'parked'} deliveries", style="dim")
    if faults:
        complain("\n".join(faults))
        raise typer.Exit(FAILED)
