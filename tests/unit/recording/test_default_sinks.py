"""Which recordings an app's own sinks get."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastagi import App, RecordingMetadata, RecordingSink
from fastagi.errors import ConfigError
from fastagi.settings import Settings


class Nowhere(RecordingSink):
    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        """Takes it."""


async def test_a_sink_of_the_app_is_for_those_that_name_it_or_for_all(tmp_path: Path) -> None:
    app = App(
        Settings.model_validate(
            {
                "agi": {"port": 0},
                "http": {"enabled": False},
                "recordings": {"directory": str(tmp_path)},
                "store": {"url": f"sqlite:///{tmp_path}/ledger.db"},
                "sinks": [{"name": "crm", "type": "local"}],
            }
        )
    )
    app.sink("own", Nowhere())
    app.sink("every", Nowhere(), default=True)
    await app.start()
    try:
        assert app.parts.sink_names.names(None) == ("crm", "every")
        assert app.parts.sink_names.names("own") == ("own",)
        app.sink("late", Nowhere(), default=True)
        assert app.parts.sink_names.names(None) == ("crm", "every", "late")
    finally:
        await app.stop()
    with pytest.raises(TypeError):
        app.sink("other", Nowhere(), True)  # type: ignore[misc]


async def test_a_name_that_is_taken_is_said_as_documented(tmp_path: Path) -> None:
    def app(*sinks: str) -> App:
        made = App(
            Settings.model_validate(
                {
                    "agi": {"port": 0},
                    "http": {"enabled": False},
                    "recordings": {"directory": str(tmp_path)},
                    "store": {"url": f"sqlite:///{tmp_path}/ledger.db"},
                    "sinks": [{"name": name, "type": "local"} for name in sinks],
                }
            )
        )
        made.sink("own", Nowhere())
        return made

    with pytest.raises(ConfigError, match="there is a sink 'own' already"):
        await app("own").start()
    started = app("crm")
    await started.start()
    try:
        for name in ("own", "crm"):
            with pytest.raises(ConfigError, match="there is a sink"):
                started.sink(name, Nowhere(), default=True)
        assert started.parts.sink_names.names(None) == ("crm",)
    finally:
        await started.stop()
    await started.start()  # what was refused is not kept
    await started.stop()
