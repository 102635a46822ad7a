"""Descriptors that are left, counted without opening any."""

from __future__ import annotations

import pytest

from fastagi.agi import descriptors
from fastagi.agi.descriptors import MOST, OTHERS, RESERVE, RESERVE_HTTP, Descriptors, available, needed


class Transport:
    """A connection with that descriptor."""

    def __init__(self, number: int) -> None:
        self._number = number

    def get_extra_info(self, name: str) -> Transport:
        return self

    def fileno(self) -> int:
        return self._number


def test_need_is_a_sum() -> None:
    assert needed(100, 20) == 120 + OTHERS + RESERVE


@pytest.mark.parametrize(
    ("soft", "hard", "expected"), [(100, 200, 200), (100, MOST + 1, MOST), (MOST + 5, MOST + 9, MOST + 5)]
)
def test_hard_limit_is_available(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, expected: int) -> None:
    monkeypatch.setattr(descriptors, "_soft_and_hard", lambda: (soft, hard))
    assert available() == expected


def test_last_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP is refused before calls are."""
    now = [1000.0]
    monkeypatch.setattr(descriptors.time, "monotonic", lambda: now[0])
    counted = Descriptors()
    counted.limit = 10_000
    for refuses, reserve in ((counted.refuses_agi, RESERVE), (counted.refuses_http, RESERVE_HTTP)):
        assert refuses(Transport(10_000 - reserve - 1)) is False  # type: ignore[arg-type]
        assert not counted.scarce or refuses == counted.refuses_http
        assert refuses(Transport(10_000 - reserve)) is True  # type: ignore[arg-type]
    assert (counted.refused_agi, counted.refused_http, counted.scarce) == (1, 1, True)
    now[0] += descriptors.SCARCE_SECONDS
    assert counted.scarce is False


def test_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise OSError("no /proc")

    monkeypatch.setattr(descriptors.os, "listdir", refuse)
    assert Descriptors().open() == 0
