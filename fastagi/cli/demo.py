"""`fastagi demo`: shows a recording in under three minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from fastagi.cli.output import AsJson, console, length, outline, print_json, show_pairs, size
from fastagi.cli.running import run

if TYPE_CHECKING:
    from rich.status import Status

    from fastagi.app.demo import Outcome


def demo(
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keeps the recording; ./demo-out when not given.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Record a real call on a real Asterisk, deliver it to a webhook, and show what came of it.

    Everything runs on 127.0.0.1 on free ports and is gone when the command ends; only the folder stays. Asterisk is
    this machine's own, or fetched from Debian the first time.
    """
    from fastagi.app import demo as app_demo  # audio and the test Asterisk: only this command needs them
    from fastagi.app.demo import orphans
    from fastagi.app.demo.run import own_folder

    orphans.adopt()
    try:
        with Told(console(stderr=True)) as told:
            outcome = run(app_demo.run(folder if folder is not None else own_folder(), told))
    finally:
        orphans.bury()
    if as_json:
        print_json(outcome.to_dict())
    else:
        _show(outcome)
    if not outcome.intact:
        raise typer.Exit(1)


class Told:
    """Shows progress on standard error: a spinner on a terminal, lines elsewhere."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._began = time.monotonic()
        self._status: Status | None = out.status("") if out.is_terminal else None

    def __enter__(self) -> Told:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._status is not None:
            self._status.stop()

    def _line(self, mark: Text, text: str, style: str = "") -> None:
        self._out.print(Text.assemble((f"{time.monotonic() - self._began:5.1f} s  ", "dim"), mark, " ", (text, style)))

    def doing(self, text: str) -> None:
        if self._status is not None:
            self._status.update(Text(f"{text} …"))
        else:
            self._line(Text("…"), text)

    def done(self, text: str) -> None:
        if self._status is not None:
            self._status.update("")
        self._line(Text("✓", "green"), text)


def _show(outcome: Outcome) -> None:
    out = console()
    heard = outcome.hearing
    recording = outcome.recording
    call = recording.duration_seconds or 0.0
    valid = outcome.webhook.signature and outcome.webhook.standard
    same = "as told" if outcome.webhook.body.get("extra", {}).get("sha256") == heard.sha256 else "NOT AS TOLD"
    out.print()
    show_pairs(
        (
            ("State", recording.state.value),
            ("Cause", recording.cause.value),
            ("File", str(outcome.file)),
            ("Codec", f"{heard.codec}, {heard.rate} Hz, {'mono' if heard.channels == 1 else 'stereo'}, WAV"),
            (
                "Length",
                f"{length(heard.seconds)} ({heard.seconds:.1f} s of a call of {call:.1f} s), {size(heard.bytes)}",
            ),
            ("Level", f"{heard.rms_dbfs:.1f} dBFS, peak {heard.peak_dbfs:.1f} dBFS"),
            ("Heard", f"{outcome.share_heard:.0%} of what was said on the call is in the file"),
            ("SHA-256", f"{heard.sha256} ({same})"),
            ("Webhook", f"{outcome.webhook.webhook_id}, signature {'valid' if valid else 'NOT VALID'}"),
        )
    )
    out.print()
    out.print(outline(outcome.webhook.body), style="dim", markup=False)
    out.print()
    told = outcome.to_dict()
    show_pairs(
        (
            ("Listen", told["listen"]),
            ("Look", f"fastagi recordings show {recording.id} --config {told['config']}"),
            ("Kept", f"{outcome.folder}; nothing of the demo runs any more"),
        )
    )
