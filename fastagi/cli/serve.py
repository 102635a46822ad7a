"""`fastagi serve`: runs the server until SIGTERM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastagi.cli.configuration import Config, settings_for


def serve(
    config: Config = None,
    app: Annotated[
        str,
        typer.Option(
            metavar="MODULE:ATTR",
            help="Your App with its routes and sinks, such as survey:app; the module is looked up from here.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Run the server until SIGTERM (or Ctrl-C), then finish what has begun. SIGHUP reloads the settings.

    Recordings of calls that are up go on in Asterisk, and the next start takes them up again.
    """
    settings = settings_for(config, quiet_logs=False)

    from fastagi.app import App  # imported only now, so that a fault in the settings is reported at once
    from fastagi.app.loading import load_app
    from fastagi.settings import discover, load

    found = discover()
    serving = load_app(app, Path.cwd()) if app else App()
    if config is not None or not serving.configured:
        source = str(found) if found is not None else "none: every setting has its default"
        serving.configure(settings, source, reread=lambda: load(discover()))
    serving.run(leave=True)
