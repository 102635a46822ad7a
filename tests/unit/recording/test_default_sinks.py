"""Which recordings an app's own sinks get."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastagi import App, RecordingMetadata, RecordingSink
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
