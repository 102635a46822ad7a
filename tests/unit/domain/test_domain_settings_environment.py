"""Defaults of recordings by environment: numbers come as text there, and are numbers all the same."""

from __future__ import annotations

import pytest

from fastagi.errors import ConfigError
from fastagi.settings import load


def test_numbers_among_the_defaults_of_recordings() -> None:
    prefix = "FASTAGI_RECORDINGS__DEFAULTS__"
    words = {
        "RATE": "6000",
        "MAX_BYTES": "100000",
        "SECONDS_TIMEOUT": "2.5",
        "DTMF_ELIM": "false",
        "FILE_FORMAT": "ulaw",
    }
    settings = load(None, {prefix + key: value for key, value in words.items()})
    assert settings.recordings.defaults == {
        "rate": 6000,
        "max_bytes": 100_000,
        "seconds_timeout": 2.5,
        "dtmf_elim": False,
        "file_format": "ulaw",
    }
    with pytest.raises(ConfigError, match="rate=7000"):
        load(None, {prefix + "RATE": "7000"})
