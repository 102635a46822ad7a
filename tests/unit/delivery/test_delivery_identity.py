"""Names of a composite's children: the same one after a restart, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastagi.delivery import CommandSink, LocalFileSink, ObjectStoreSink, VconSink, WebhookSink
from fastagi.delivery.identity import child_names


class Named:
    def __init__(self, name: str = "", password: str = "") -> None:
        self.name = name
        self.password = password
        self.calls = 0

    def on_recording_complete(self, metadata: object) -> None: ...


class Told(Named):
    def __init__(self, identity: Any) -> None:
        super().__init__()
        self.identity = identity


class Place:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_recording_complete(self, metadata: object) -> None: ...


MAKERS: list[Any] = [
    lambda: WebhookSink("https://crm.example.com/a"),
    lambda: WebhookSink("https://crm.example.com/b"),
    lambda: WebhookSink("https://crm.example.com/b?tenant=2"),
    lambda: WebhookSink("https://one@crm.example.com/b"),
    lambda: LocalFileSink("/a"),
    lambda: LocalFileSink("/b"),
    lambda: ObjectStoreSink("s3://calls/2026"),
    lambda: ObjectStoreSink("s3://calls/2026", "{recording_id}.wav"),
    lambda: ObjectStoreSink("s3://calls/2026", options={"endpoint": "https://minio.example.com"}),
    lambda: ObjectStoreSink("file:///tmp/fastagi-out"),
    lambda: VconSink("/a"),
    lambda: VconSink("https://vcon.example.com/x"),
    lambda: VconSink("https://vcon.example.com/x", audio_url="https://here.example.com/{file}"),
    lambda: CommandSink(["/bin/a", "{file_path}"]),
    lambda: CommandSink(["/bin/a", "{recording_id}"]),
    lambda: Named("archive"),
    lambda: Named("billing"),
    lambda: Place(Path("/a")),
    lambda: Place(Path("/b")),
    lambda: Told("crm"),
    lambda: Told("erp"),
    lambda: Told("a text that is too long, or has characters that are no good in a name"),
]


def named(makers: list[Any]) -> dict[int, str]:
    return dict(zip(map(id, makers), child_names([make() for make in makers]), strict=True))


def test_name_is_independent_of_position() -> None:
    """A child keeps its name wherever it stands and whichever sinks are beside it."""
    names = named(MAKERS)
    assert len(set(names.values())) == len(MAKERS)
    assert named(MAKERS[::-1]) == names
    few = [make for make in MAKERS if not isinstance(make(), (Named, Place)) or isinstance(make(), Told)][::2]
    assert few
    assert named(few) == {id(make): names[id(make)] for make in few}


def test_another_of_class_takes_no_name() -> None:
    """One more sink of a class does not take the names of those that differ."""
    first, second, third = MAKERS[15], MAKERS[16], lambda: Named("crm")
    before, after = named([first, second]), named([third, first, second])
    assert {after[id(first)], after[id(second)]} == set(before.values())
    assert after[id(first)] == before[id(first)]
    assert after[id(third)] not in before.values()


def test_ambiguous_children_lose_old_names() -> None:
    """With one more of several indistinguishable children, the old names mean none of them."""
    assert child_names([Named()]) == [f"{__name__}.Named"]
    two, three = child_names([Named(), Named()]), child_names([Named(), Named(), Named()])
    assert len({*two, *three, f"{__name__}.Named"}) == 6


def test_subclass_may_set_its_identity() -> None:
    class Crm(WebhookSink):
        identity = "crm"

    class Erp(WebhookSink):
        @property
        def identity(self) -> str:
            return "erp"

    assert child_names([Crm("https://h/x"), Erp("https://h/x")]) == ["Crm.crm", "Erp.erp"]


def test_duplicate_target_has_a_number() -> None:
    a, b = child_names([WebhookSink("https://h/x", signing_secret=s) for s in ("one", "two")])
    assert b == f"{a}.2"


def test_secrets_are_not_in_names() -> None:
    """A changed secret changes no name, and no name shows a secret."""

    def names(secret: str) -> list[str]:
        return child_names(
            [
                WebhookSink(f"https://u:{secret}@crm.example.com/x", signing_secret=secret),
                ObjectStoreSink("s3://calls", options={"access_key_id": "x", "secret_access_key": secret}),
                Named("a", password=secret),
                Named("b", password=secret),
            ]
        )

    assert names("hunter2") == names("hunter3")
    assert "hunter" not in "".join(names("hunter2"))


@pytest.mark.parametrize(
    ("sink", "start"),
    [
        (WebhookSink("https://crm.example.com/x"), "WebhookSink.crm.example.com."),
        (WebhookSink("http://[::1]:80/x"), "WebhookSink.1."),
        (ObjectStoreSink("s3://calls/2026"), "ObjectStoreSink.calls."),
        (LocalFileSink(), "LocalFileSink."),
        (Told("crm"), "Told.crm"),
        (Told(""), f"{__name__}.Told"),
        (Told(7), f"{__name__}.Told"),
    ],
)
def test_names_say_what_they_are(sink: Any, start: str) -> None:
    [name] = child_names([sink])
    assert name.startswith(start)
    assert name.isprintable()
    assert not set(name) & set(" /@?:")


def test_names_are_stable_between_releases() -> None:
    """A ledger holds them for a day, and longer where they are parked."""
    assert child_names([WebhookSink("https://crm.example.com/x"), LocalFileSink()]) == [
        "WebhookSink.crm.example.com.ea0e887e",
        "LocalFileSink.a4ed8fc6",
    ]
