"""`fastagi doctor`: is everything as the server needs it?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from fastagi.cli.configuration import Config, settings_for
from fastagi.cli.output import STYLES, AsJson, console, print_json, styled
from fastagi.cli.running import run

if TYPE_CHECKING:
    from fastagi.app.doctor import Finding
    from fastagi.settings import Settings


def doctor(config: Config = None, as_json: AsJson = False) -> None:
    """Prove the settings against the live system: Asterisk, its rights, the shared spool, disks, ports, store, sinks.

    Changes nothing and may run beside the server. Run it as the server's user. Exit code 1 when a check fails.
    """
    from fastagi.app.doctor import Status

    settings = settings_for(config)
    findings = run(_collect(settings, None if as_json else console()))
    failed = any(f.status is Status.FAIL for f in findings)
    if as_json:
        print_json({"ok": not failed, "checks": [f.to_dict() for f in findings]})
    else:
        counts = Counter(f.status for f in findings)
        console().print(
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
    if failed:
        raise typer.Exit(1)


async def _collect(settings: Settings, out: Console | None) -> list[Finding]:
    from fastagi.app.doctor import examine

    findings: list[Finding] = []
    async for finding in examine(settings):
        findings.append(finding)
        if out is not None:
            _show(out, finding)
    return findings


def _show(out: Console, finding: Finding) -> None:
    """One line. What to do stands below it for people, and on the same line for grep."""
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
