"""A database's address in messages: without a password, wherever in it one stands."""

from __future__ import annotations

import pytest

from fastagi.store import open_store
from fastagi.store.offline import OfflineLedger


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://fastagi:hush@db/fastagi",
        "postgresql://db/fastagi?user=fastagi&password=hush",
        "postgresql://db/fastagi?sslmode=require&PASSWORD=hush&x=1",
        "postgresql+asyncpg://db/fastagi?p%61ssword=hush",
        "postgres://fastagi:hush@db/fastagi?sslpassword=hush&passfile=hush",
    ],
)
def test_password_in_query_is_hidden(url: str) -> None:
    for shown in (open_store(url, node="one").shown, OfflineLedger(url).shown):
        assert "hush" not in shown
        assert "db/fastagi" in shown
