"""How many sessions fit into how many file descriptors."""

from __future__ import annotations

import pytest

from fastagi.agi import descriptors
from fastagi.app.doctor.finding import Status
from fastagi.app.doctor.places import _descriptors
from fastagi.app.room import others, sessions_that_fit
from fastagi.errors import ConfigError
from fastagi.settings import Settings


def settings(**agi: int) -> Settings:
    sink = {"name": "crm", "type": "webhook", "url": "http://127.0.0.1/", "concurrency": 10}
    return Settings.model_validate({"agi": agi, "sinks": [sink]})


def test_fitting_setting_is_kept() -> None:
    given = settings(max_sessions=5000)
    least = descriptors.needed(5000, others(given))
    assert sessions_that_fit(given, least) == 5000
    assert others(given) == 520


def test_the_default_is_lowered() -> None:
    assert sessions_that_fit(settings(), 1024) == 1024 - 520 - 264


def test_a_wish_beyond_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^agi\.max_sessions = 5000: .* LimitNOFILE=5784 .*, or agi\.max_sessions = 240$"
    ):
        sessions_that_fit(settings(max_sessions=5000), 1024)


def test_room_for_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"LimitNOFILE=5784 \(ulimit -n 5784\)$"):
        sessions_that_fit(settings(), 256)


def test_doctor_says_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "available", lambda: 1024)
    assert _descriptors(settings(max_sessions=240)).status is Status.OK
    lowered = _descriptors(settings())
    assert lowered.status is Status.WARN
    assert "5784" in lowered.remedy
    refused = _descriptors(settings(max_sessions=5000))
    assert refused.status is Status.FAIL
    assert "LimitNOFILE=5784" in refused.text
