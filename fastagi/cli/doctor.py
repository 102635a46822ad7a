"""`fastagi doctor`: checks that everything is as the server needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from fastagi.cli.configuration import Config, settings_for
from fastagi.cli.output import STYLES, AsJson, console, print_json, styled
from fastagi.cli.running import run

if TYPE_CHECKING:
    from fastagi.app.doctor import Finding
    from fastagi.app.doctor.fixing import Done
    from fastagi.app.doctor.serving_user import ServingUser
    from fastagi.settings import Settings


def doctor(
    config: Config = None,
    user: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="As root: examine with this user's rights. Else those of the running server, or of fastagi.service.",
            show_default=False,
        ),
    ] = "",
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Carry out the remedies that are safe, and say each: directories, owners, modes."),
    ] = False,
    send_ping: Annotated[
        bool, typer.Option("--send-ping", help="Post a signed event of type ping to each webhook and judge its answer.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prove the settings against the live system: Asterisk, its rights, the shared spool, disks, ports, store, sinks.

    Changes nothing without --fix, delivers nothing without --send-ping, and may run beside the server. As root it
    examines with the rights of the user that serves. Exit code 1 when a check fails.
    """
    from fastagi.app.doctor import Status
    from fastagi.app.doctor.serving_user import find

    settings = settings_for(config)
    serving = find(settings, user)
    out = None if as_json else console()
    examined = partial(_examined, settings, serving, send_ping)
    findings = examined(out)
    done: list[Done] = []
    if fix:
        findings, done = _fixed(settings, examined, findings, out)
    failed = any(f.status is Status.FAIL for f in findings)
    if out is None:
        fixes = (
            {"fixes": [{"fix": str(d.fix), "done": not d.why_not, "why_not": d.why_not} for d in done]} if fix else {}
        )
        print_json({"ok": not failed, **fixes, "checks": [f.to_dict() for f in findings]})
    else:
        _sum_up(out, findings, failed)
    if failed:
        raise typer.Exit(1)


def _sum_up(out: Console, findings: list[Finding], failed: bool) -> None:
    from fastagi.app.doctor import Status

    counts = Counter(f.status for f in findings)
    out.print(
        Text.assemble(
            "\n",
            f"{len(findings)} checks: ",
            (f"{counts[Status.OK]} ok", STYLES["ok"]),
            ", ",
            (f"{counts[Status.WARN]} warnings", STYLES["warn"] if counts[Status.WARN] else ""),
            ", ",
            (f"{counts[Status.FAIL]} failed", STYLES["fail"] if failed else ""),
        )
    )


def _examined(settings: Settings, serving: ServingUser | None, send_ping: bool, out: Console | None) -> list[Finding]:
    """Return all findings; `out` shows each as it comes."""
    if serving is None:
        return run(_collect(settings, send_ping, out))
    from fastagi.app.doctor.borrowed_rights import examine_as

    findings: list[Finding] = []
    for finding in examine_as(serving, settings, send_ping=send_ping):
        findings.append(finding)
        if out is not None:
            _show(out, finding)
    return findings


async def _collect(settings: Settings, send_ping: bool, out: Console | None) -> list[Finding]:
    from fastagi.app.doctor import examine

    findings: list[Finding] = []
    async for finding in examine(settings, send_ping=send_ping):
        findings.append(finding)
        if out is not None:
            _show(out, finding)
    return findings


def _fixed(
    settings: Settings,
    examined: Callable[[Console | None], list[Finding]],
    findings: list[Finding],
    out: Console | None,
) -> tuple[list[Finding], list[Done]]:
    """Carry out the fixes and examine again, until a round shows nothing new to do: a missing folder hides its
    contents.

    :returns: the last findings, and what was done
    """
    from fastagi.app.doctor.fixing import Fixer

    fixer = Fixer(settings)
    done: list[Done] = []
    while new := {fix for f in findings for fix in f.fixes} - {d.fix for d in done}:
        before = len(done)
        for wanted in sorted(new, key=str):
            done.append(fixer.carry_out(wanted))
            if out is not None:
                _show_done(out, done[-1])
        if all(d.why_not for d in done[before:]):
            break
        findings = examined(None)
    if out is not None and any(not d.why_not for d in done):
        out.print("\nExamined again:\n")
        for finding in findings:
            _show(out, finding)
    return findings, done


def _show_done(out: Console, done: Done) -> None:
    style, word = (STYLES["warn"], "not done") if done.why_not else (STYLES["ok"], "done")
    line = Text.assemble((f"{word:8}", style), "  ", styled(str(done.fix)).plain)
    out.print(line.append(f": {styled(done.why_not).plain}" if done.why_not else ""))


def _show(out: Console, finding: Finding) -> None:
    """Print a finding on one line. The remedy stands below it for people, and on the same line for grep."""
    line = Text.assemble(
        (f"{finding.status.value:4}", STYLES[finding.status.value]),
        "  ",
        (f"{finding.area:<16}", "bold"),
        " ",
        f"{finding.check:<10}",
        " ",
        styled(finding.text),
    )
    if finding.remedy:
        line.append("\n      → " if out.is_terminal else " → ", style="dim")
        line.append(styled(finding.remedy).plain, style="italic")
    out.print(line)
