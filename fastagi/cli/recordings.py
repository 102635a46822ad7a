"""`fastagi recordings …`: finds, shows, verifies, exports, decrypts, holds and deletes recordings."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from fastagi.app import recordings_admin as archive
from fastagi.cli.configuration import Config, ledger_of, settings_for
from fastagi.cli.filters import (
    Asterisk,
    Called,
    Caller,
    Cause,
    Channel,
    Limit,
    Linkedid,
    Names,
    Search,
    Since,
    State,
    Uniqueid,
    Until,
    wanted,
)  # fmt: skip
from fastagi.cli.output import AsJson, console, length, print_json, show_pairs, show_table, size, styled, when, words
from fastagi.cli.running import run
from fastagi.delivery.keys import DEFAULT_TEMPLATE
from fastagi.domain.recording import Recording
from fastagi.errors import BadArgument, Error
from fastagi.web import serializers

if TYPE_CHECKING:
    from fastagi.recording.compliance.evidence import Finding
    from fastagi.store.queries.journal import Entry

recordings = typer.Typer(no_args_is_help=True, help="Find, prove, export, decrypt, hold and delete recordings.")

Id = Annotated[str, typer.Argument(metavar="ID", help="Its id, the first letters of it, its file, name or uniqueid.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is journalled.", show_default=False)]
Who = Annotated[str, typer.Option("--who", help="Who asks for it; your login name when not given.", show_default=False)]


def _login() -> str:
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        return f"cli:{os.getuid()}"


@recordings.command("list")
def list_(
    config: Config = None,
    since: Since = "",
    until: Until = "",
    caller: Caller = "",
    called: Called = "",
    search: Search = "",
    state: State = "",
    cause: Cause = "",
    channel: Channel = "",
    uniqueid: Uniqueid = "",
    linkedid: Linkedid = "",
    asterisk: Asterisk = "",
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List recordings, newest first."""
    settings = settings_for(config)
    chosen = wanted(
        since=since, until=until, caller=caller, called=called, search=search, state=state, cause=cause,
        channel=channel, uniqueid=uniqueid, linkedid=linkedid, asterisk=asterisk,
    )  # fmt: skip

    async def work() -> list[Recording]:
        async with ledger_of(settings) as ledger:
            return [r async for r in archive.select(ledger, archive.Selection(filter=chosen, limit=limit))]

    found = run(work())
    if as_json:
        print_json([serializers.recording(r) for r in found])
        return
    show_table(
        ("id", "started", "caller", "called", "length", "size", "state", "cause", "file"),
        [
            (
                r.id,
                when(r.started_at or r.requested_at),
                r.caller,
                r.called,
                length(r.audio_seconds if r.audio_seconds is not None else r.duration_seconds),
                size(r.bytes),
                "deleted" if r.deleted_at is not None else r.state.value,
                r.public_cause.value,
                r.error or r.file_path,
            )
            for r in found
        ],
        right=("length", "size"),
        empty="no such recordings",
    )
    if limit and len(found) == limit:
        console(stderr=True).print(f"the newest {limit}; --limit 0 shows all", style="dim")


@recordings.command(short_help="Show all that is known of one.")
def show(recording_id: Id, config: Config = None, as_json: AsJson = False) -> None:
    """Show all that is known of a recording: its facts, its deliveries with their attempts, its journal."""
    from fastagi.store.queries import deliveries, journal

    settings = settings_for(config)

    async def work() -> tuple[Recording, list[Any], list[Entry]]:
        async with ledger_of(settings) as ledger:
            found = await archive.by_name(ledger, recording_id)
            made = []
            for delivery in await ledger.read(deliveries.of_recording, found.id):
                made.append((delivery, await ledger.read(deliveries.attempts, delivery.id)))
            return found, made, await ledger.read(journal.history, found.id)

    found, made, entries = run(work())
    shape = serializers.recording(found)
    if as_json:
        shape["deliveries"] = [
            {**serializers.delivery(d), "attempts_made": [serializers.attempt(a) for a in attempts]}
            for d, attempts in made
        ]
        shape["journal"] = [serializers.entry(e) for e in entries]
        print_json(shape)
        return
    out = console()
    facts = shape.pop("facts")
    shape["segments"] = [f"{channel} from {when(at)}" for channel, at in shape["segments"]]
    times = {f"{name}_at": when(getattr(found, f"{name}_at")) for name in ("requested", "started", "ended", "finished")}
    show_pairs(
        (name.replace("_", " "), words(value) if isinstance(value, dict | list) else value)
        for name, value in {**shape, **times, "deleted_at": when(found.deleted_at), **facts}.items()
        if value not in (None, "", [], {}, False)
    )
    if made:
        out.print("\nDeliveries", style="bold")
        for delivery, attempts in made:
            out.print(Text.assemble("  ", delivery.id, "  ", delivery.sink, "  ", styled(delivery.status.value)))
            for a in attempts:
                said = "ok" if a.ok else a.error
                out.print(
                    Text(f"    {when(a.at)}  attempt {a.n}, {a.seconds:.2f} s: {styled(said).plain}", style="dim")
                )
    out.print("\nJournal", style="bold")
    for e in entries:
        detail = f"  {words(e.detail)}" if e.detail else ""
        out.print(Text(f"  {when(e.at)}  {e.event:<14} {e.to_phase}{detail}"))


@recordings.command(short_help="Prove that files are what was recorded.")
def verify(
    names: Names = None,
    config: Config = None,
    since: Since = "",
    until: Until = "",
    as_json: AsJson = False,
) -> None:
    """Compute each file's SHA-256 again and hold it against the ledger: ok, changed, missing.

    Without ids: all finished recordings that were not deleted. Exit code 1 when any is not ok.
    """
    from fastagi.recording.compliance.evidence import Proof

    settings = settings_for(config)
    # another server's files are on another machine; SQLite has no other server, whatever name its rows have
    own = "" if settings.store.url.startswith("sqlite") else settings.store.node
    chosen = wanted(since=since, until=until, phase="finished", deleted=False, node=own)
    selection = archive.Selection(tuple(names or ()), chosen)
    err = console(stderr=True)

    async def work() -> list[tuple[Recording, Finding]]:
        proven = []
        async with ledger_of(settings) as ledger:
            with err.status("reading files …") as status:
                async for recording, finding in archive.prove(archive.select(ledger, selection)):
                    proven.append((recording, finding))
                    status.update(f"{len(proven)} read …")
        return proven

    proven = run(work())
    counts = Counter(finding.proof for _, finding in proven)
    bad = [(r, f) for r, f in proven if f.proof is not Proof.OK]
    if as_json:
        print_json(
            {
                "ok": not bad,
                "counts": {proof.value: counts[proof] for proof in Proof},
                "recordings": [
                    {
                        "id": r.id,
                        "file_path": r.file_path,
                        "proof": f.proof.value,
                        "detail": f.detail,
                        "sha256": r.sha256 or None,
                        "found_sha256": f.sha256 or None,
                    }
                    for r, f in proven
                ],
            }
        )
    else:
        if bad:
            show_table(("proof", "id", "detail"), [(f.proof.value, r.id, f.detail) for r, f in bad])
        elif not proven:
            err.print("no finished recordings", style="dim")
        told = ", ".join(f"{counts[proof]} {proof.value}" for proof in Proof if counts[proof])
        if proven:
            err.print(f"{len(proven)} recordings: {told}")
    if bad:
        raise typer.Exit(1)


@recordings.command(short_help="Copy files and metadata into a folder.")
def export(
    folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder; made if need be.")],
    names: Names = None,
    config: Config = None,
    since: Since = "",
    until: Until = "",
    caller: Caller = "",
    called: Called = "",
    search: Search = "",
    cause: Cause = "",
    channel: Channel = "",
    linkedid: Linkedid = "",
    asterisk: Asterisk = "",
    template: Annotated[str, typer.Option(metavar="TEMPLATE", help="Name of each file below it.")] = DEFAULT_TEMPLATE,
    clear: Annotated[bool, typer.Option("--decrypt", help="Decrypt what is encrypted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy recordings, their metadata (.json beside each) and SHA256SUMS into a folder.

    A file that is no longer what was recorded is not copied. Run again it goes on where it was. Exit code 1 when
    something could not be exported.
    """
    settings = settings_for(config)
    chosen = wanted(
        since=since, until=until, caller=caller, called=called, search=search, cause=cause, channel=channel,
        linkedid=linkedid, asterisk=asterisk, phase="finished", deleted=False,
    )  # fmt: skip
    selection = archive.Selection(tuple(names or ()), chosen)
    err = console(stderr=True)

    async def work() -> list[archive.Exported]:
        async with ledger_of(settings) as ledger:
            with err.status("copying …") as status:
                done: list[archive.Exported] = []
                chosen = archive.select(ledger, selection)
                async for one in archive.export(settings, ledger, chosen, folder, template=template, clear=clear):
                    done.append(one)
                    status.update(f"{len(done)} copied …")
        return done

    done = run(work())
    faults = [one for one in done if one.fault]
    if as_json:
        print_json(
            [
                {"id": e.recording.id, "file": e.file or None, "sha256": e.sha256 or None, "fault": e.fault or None}
                for e in done
            ]
        )
    else:
        if faults:
            show_table(("id", "fault"), [(e.recording.id, e.fault) for e in faults])
        err.print(f"{len(done) - len(faults)} recordings in {folder}" + (f", {len(faults)} not" if faults else ""))
    if faults:
        raise typer.Exit(1)


@recordings.command(short_help="Make an encrypted one readable.")
def decrypt(
    name: Annotated[str, typer.Argument(metavar="ID|FILE", help="A recording, or an encrypted file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The clear file.")],
    config: Config = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A key (raw, hex, base64) or age identity; else the ledger's.", show_default=False
        ),
    ] = None,
    iv: Annotated[str, typer.Option(metavar="HEX", help="With --key-file, of AES-CBC.", show_default=False)] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over OUT.")] = False,
) -> None:
    """Decrypt a recording with the key in the ledger, or any encrypted file with a key of your own."""
    from fastagi.app.recordings_admin.decrypting import decrypt_with

    if output.is_dir():
        raise BadArgument(f"--output {output}: is a folder: name the file")
    if output.exists() and not force:
        raise BadArgument(f"--output {output}: is there already; --force writes over it")
    source = Path(name)
    is_file = source.is_file()
    if key_file is not None and is_file:
        decrypt_with(source, key_file, output, iv)
    else:
        settings = settings_for(config)

        async def work() -> None:
            async with ledger_of(settings) as ledger:
                try:
                    found = await archive.by_name(ledger, name)
                except Error as exc:
                    if not is_file:
                        raise
                    raise Error(f"{exc}; a file that is no recording's here needs --key-file") from None
                if key_file is None:
                    await archive.decrypt(settings, ledger, found, output)
                else:
                    await asyncio.to_thread(decrypt_with, Path(found.file_path), key_file, output, iv)

        run(work())
    console(stderr=True).print(f"{output} is in clear: everyone who can read it can listen")


@recordings.command(short_help="Keep one whatever happens (legal hold).")
def hold(recording_id: Id, reason: Reason, who: Who = "", config: Config = None, as_json: AsJson = False) -> None:
    """Keep a recording whatever happens (legal hold): neither retention nor `delete` touch it."""
    _keep("hold", recording_id, reason, who, config, as_json)


@recordings.command()
def release(recording_id: Id, reason: Reason, who: Who = "", config: Config = None, as_json: AsJson = False) -> None:
    """End a legal hold."""
    _keep("release", recording_id, reason, who, config, as_json)


@recordings.command(short_help="Delete a file and its key.")
def delete(
    recording_id: Id,
    reason: Reason,
    who: Who = "",
    force: Annotated[bool, typer.Option("--force", help="Also what is not delivered yet; never over a hold.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Delete a recording's file and its key. What is known of it stays, with who deleted it and why."""
    _keep("delete", recording_id, reason, who, config, as_json, force)


def _keep(what: str, name: str, reason: str, who: str, config: Path | None, as_json: bool, force: bool = False) -> None:
    settings = settings_for(config)

    async def work() -> Recording:
        async with ledger_of(settings) as ledger:
            found = await archive.by_name(ledger, name)
            person = who or _login()
            if what == "delete":
                return await archive.delete(settings, ledger, found, person, reason, force=force)
            change = archive.hold if what == "hold" else archive.release
            return await change(settings, ledger, found, person, reason)

    after = run(work())
    if as_json:
        print_json(serializers.recording(after))
    else:
        done = {"hold": "is on legal hold", "release": "is no longer on hold", "delete": "is deleted"}[what]
        console().print(f"{after.id} {done}")
