"""Sinks by name: from settings, registered, and objects without one."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest
import structlog

from fastagi import App
from fastagi.delivery import CommandSink, CompositeSink, LocalFileSink, ObjectStoreSink, VconSink, WebhookSink
from fastagi.delivery.registry import Entry, SinkRegistry, registry_of
from fastagi.delivery.sink_type import build_sink
from fastagi.errors import BadArgument, ConfigError
from fastagi.settings import SinkSettings, load
from support.delivery_harness import until


def section(**fields: Any) -> SinkSettings:
    return SinkSettings(**{"name": "crm", **fields})


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"type": "local"}, LocalFileSink),
        ({"type": "webhook", "url": "https://h/x", "signing_secret": "s", "timeout_seconds": 3}, WebhookSink),
        ({"type": "objectstore", "url": "file:///tmp/fastagi-out", "delete_local": True}, ObjectStoreSink),
        ({"type": "vcon", "target": "/tmp"}, VconSink),
        ({"type": "command", "argv": ["/bin/true", "{file_path}"]}, CommandSink),
    ],
)
def test_every_type_can_be_built(fields: dict[str, Any], kind: type) -> None:
    assert isinstance(build_sink(section(**fields)), kind)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "webhook"}, r"sinks\[crm\]\.url: is missing \(http or https"),
        (
            {"type": "webhook", "url": "https://h", "secret": "x"},
            r"sinks\[crm\]\.secret: a sink of type webhook has no such key; allowed are .*signing_secret",
        ),
        ({"type": "webhook", "url": "gopher://h"}, r"sinks\[crm\]: url='gopher://h' must be http"),
        (
            {"type": "webhook", "url": "https://h", "timeout_seconds": "soon"},
            r"sinks\[crm\]\.timeout_seconds = 'soon': .*whole exchange",
        ),
        (
            {"type": "webhook", "url": "https://h", "signing_secret": "a", "signing_secret_file": "/b"},
            r"sinks\[crm\]: has both",
        ),
        (
            {"type": "webhook", "url": "https://h", "signing_secret_file": "/nowhere"},
            r"sinks\[crm\]\.signing_secret_file = '/nowhere': No such file",
        ),
        ({"type": "objectstore", "url": "ftp://h"}, r"sinks\[crm\]: url='ftp://h' must start with s3://"),
        ({"type": "vcon", "target": "here"}, r"sinks\[crm\]: target='here' must be"),
        ({"type": "command", "argv": "rm -rf"}, r"sinks\[crm\]\.argv = 'rm -rf': .*there is no shell"),
        ({"type": "command", "argv": []}, r"sinks\[crm\]\.argv"),
        ({"type": "command", "argv": ["x", "{caller}"]}, r"sinks\[crm\]: argv: \{caller\} is not known"),
    ],
)
def test_fault_names_sink_and_key(fields: dict[str, Any], said: str) -> None:
    """A fault names the sink, the key and the allowed values."""
    with pytest.raises(ConfigError, match=rf"^{said}[^\n]*$"):
        build_sink(section(**fields))


def test_fault_hides_the_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        build_sink(section(type="webhook", url="https://h", signing_secret=[["hunter2"]]))
    assert "hunter2" not in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        registry_of([section(type="webhook"), SinkSettings(name="b", type="vcon"), section(name="c", type="local")])
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["sinks[crm].url", "sinks[b].target"]


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("please-rotate-me\n")
    sink = build_sink(section(type="webhook", url="https://h", signing_secret_file=str(tmp_path / "s")))
    assert isinstance(sink, WebhookSink)
    assert (
        sink.headers(b"", "x")["X-Voxtra-Signature"]
        == (WebhookSink("https://h", signing_secret="please-rotate-me").headers(b"", "x")["X-Voxtra-Signature"])
    )


@pytest.mark.parametrize("how", ["text", "list", "file"])
def test_several_secrets_from_settings(tmp_path: Path, how: str) -> None:
    """One text, a list of them, or a file with one a line."""
    (tmp_path / "s").write_text("new\n\n  old  \n")
    options = {
        "text": {"signing_secret": "new"},
        "list": {"signing_secret": ["new", "old"]},
        "file": {"signing_secret_file": str(tmp_path / "s")},
    }[how]
    sink = build_sink(section(type="webhook", url="https://h", **options))
    assert isinstance(sink, WebhookSink)
    wanted = WebhookSink("https://h", signing_secret=["new"] if how == "text" else ["new", "old"])
    assert len(sink._standard_keys) == (1 if how == "text" else 2)
    assert sink._standard_keys == wanted._standard_keys
    assert sink._plain_key == b"new"


def test_retry_hours_are_per_sink() -> None:
    """72 by default; the settings', else what a sink of one's own says of itself."""
    registry = registry_of([section(type="local", retry_hours=0.5), SinkSettings(name="b", type="local")])
    own = Duck()
    own.retry_hours = 24.0  # type: ignore[attr-defined]
    registry.register("own", own)
    assert {entry.name: entry.retry_seconds for entry in registry} == {"crm": 1800.0, "b": 259_200.0, "own": 86_400.0}


@pytest.mark.parametrize("hours", ["0", "-1", "9000", "'soon'", "true", "inf", "nan"])
def test_wrong_retry_hours_are_refused(hours: str, tmp_path: Path) -> None:
    file = tmp_path / "fastagi.toml"
    file.write_text(f"[[sinks]]\nname = 'crm'\ntype = 'local'\nretry_hours = {hours}\n")
    with pytest.raises(ConfigError, match=r"sinks\[0\]\.retry_hours"):
        load(file, {})


def test_settings_say_how_many_at_once() -> None:
    registry = registry_of([section(type="local", concurrency=3)])
    entry = registry.get("crm")
    assert entry is not None
    assert (entry.concurrency, entry.needs_file, entry.time_limit_seconds) == (3, False, 120.0)


class Duck:
    def on_recording_complete(self, metadata: object) -> None: ...


def test_names() -> None:
    registry = SinkRegistry()
    changes: list[str] = []
    registry.changed = changes.append
    a, b, c = Duck(), Duck(), Duck()
    assert registry.register("a", a) == ("a",)
    duck = f"group/{__name__}.Duck"
    children = (f"{duck}.1of2", "a", f"{duck}.2of2")
    assert registry.register("group", CompositeSink(b, CompositeSink(a, c, b))) == children
    assert changes == ["a", f"{duck}.1of2", f"{duck}.2of2"]
    assert registry.names("group") == children
    assert registry.names("a") == registry.names(a) == ("a",)
    assert registry.names(CompositeSink(a, b, a)) == ("a", f"{duck}.1of2")
    entry = registry.get("a")
    assert entry is not None
    assert entry.needs_file, "nobody knows what a sink of the user's own reads"
    with pytest.raises(BadArgument, match="no sink 'z'; registered are a, group"):
        registry.names("z")
    for name in ("a", "group"):
        with pytest.raises(ConfigError, match="there is a sink"):
            registry.register(name, Duck())
    for name in ("", "object:x", "a\nb"):
        for give in (registry.register, App().sink):
            with pytest.raises(BadArgument, match="cannot be used"):
                give(name, Duck())
    with pytest.raises(BadArgument, match="str is no sink"):
        registry.register("s", "https://h")  # type: ignore[arg-type]


def test_unnamed_objects_live_while_needed() -> None:
    """Objects without a name are kept while recordings need them."""
    registry, other = SinkRegistry(), SinkRegistry()
    sink = Duck()
    [name] = registry.names(sink)
    assert registry.names(sink) == (name,)
    assert name.startswith("object:Duck:")
    assert registry.get(name) is not None
    assert registry.serves(name, [registry.process])
    assert not registry.serves(name, [other.process])
    assert other.names(sink) != (name,), "another process's object is another sink"
    registry.release(name)
    assert name in registry
    registry.release(name)
    assert name not in registry
    registry.release(name)
    registry.register("kept", sink)
    registry.release("kept")
    assert "kept" in registry


async def test_closing_closes_what_can_be_closed() -> None:
    closed: list[str] = []

    class Closing(Duck):
        async def aclose(self) -> None:
            closed.append("yes")

    registry = SinkRegistry()
    registry.register("a", Closing())
    registry.register("b", Duck())
    await registry.aclose()
    assert closed == ["yes"]


async def test_closing_one_sink_affects_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sink holds or breaks the closing of the others."""
    monkeypatch.setattr("fastagi.delivery.closing.CLOSE_SECONDS", 0.1)
    closed: list[str] = []
    gate = threading.Event()

    class Closes(Duck):
        def __init__(self, close: Callable[[], Any]) -> None:
            self.aclose = close

    async def raises() -> None:
        raise RuntimeError("broken pipe")

    async def exits() -> None:
        sys.exit("bye")

    registry = SinkRegistry()
    ways = {
        "plain": lambda: closed.append("plain"),
        "plain-raises": lambda: 1 / 0,
        "plain-hangs": lambda: gate.wait(30),
        "raises": raises,
        "exits": exits,
        "hangs": lambda: asyncio.Event().wait(),
    }
    for name, close in ways.items():
        registry.register(name, Closes(close))
    registry.register("mock", AsyncMock())
    with structlog.testing.capture_logs() as lines:
        async with asyncio.timeout(20):
            await registry.aclose()
    gate.set()
    assert closed == ["plain"]
    assert {(line["event"], line["sink"], line["error"]) for line in lines} == {
        ("sink_not_closed", "plain-raises", "ZeroDivisionError: division by zero"),
        ("sink_not_closed", "plain-hangs", "it took longer than 0.1 s"),
        ("sink_not_closed", "raises", "RuntimeError: broken pipe"),
        ("sink_not_closed", "exits", "SinkError: SystemExit: bye"),
        ("sink_not_closed", "hangs", "it took longer than 0.1 s"),
    }


async def test_forgotten_object_is_closed_if_reopens() -> None:
    """A sink that a call brought along is closed when it is forgotten, if it can open again."""
    closed: list[str] = []

    class Owning(Duck):
        def __init__(self, name: str, reopens: Any) -> None:
            self.name = name
            self.reopens = reopens

        async def aclose(self) -> None:
            closed.append(self.name)

    registry = SinkRegistry()
    brought = [Owning("a", True), Owning("b", False), Owning("c", True)]
    names = [name for sink in brought for name in registry.names(sink)]
    for name in names:
        registry.release(name)
    registry.names(brought[2])  # another recording needs it by then
    await until(lambda: closed == ["a"])
    await registry.aclose()
    assert closed == ["a", "c"]
    assert WebhookSink.reopens is VconSink.reopens is True


@pytest.mark.parametrize(
    ("mistaken", "said"),
    [
        (LocalFileSink, "LocalFileSink is a class: give a sink, such as LocalFileSink\\(...\\)"),
        (object(), "object is no sink: it has no on_recording_complete"),
        ("crm", "str is no sink"),
        (None, "NoneType is no sink"),
    ],
)
def test_non_sink_is_refused_at_once(mistaken: Any, said: str) -> None:
    """An object that is no sink is refused where it is given."""
    ways: list[Callable[[], Any]] = [
        lambda: SinkRegistry().register("mine", mistaken),
        lambda: CompositeSink(LocalFileSink(), mistaken),
        lambda: App().sink("mine", mistaken),
    ]
    if mistaken is not None:
        ways.append(lambda: App(recording_sink=mistaken))
    for give in ways:
        with pytest.raises(BadArgument, match=said):
            give()


@pytest.mark.parametrize("sink", [Mock(), MagicMock(), AsyncMock(), AsyncMock(spec=LocalFileSink())])
def test_a_mock_says_nothing_of_itself(sink: Any) -> None:
    registry = SinkRegistry()
    with structlog.testing.capture_logs() as lines:
        registry.register("mock", sink)
    entry = registry.get("mock")
    assert entry is not None
    assert (entry.delete_local, entry.needs_file, entry.concurrency, entry.time_limit_seconds) == (
        False,
        sink.needs_file is not False,
        8,
        120.0,
    )
    assert lines == []


def test_proxy_shows_its_sinks_attributes() -> None:
    class Proxy:
        def __init__(self, inner: object) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    registry = SinkRegistry()
    registry.register("a", Proxy(ObjectStoreSink("file:///tmp/fastagi-out", delete_local=True)))
    entry = registry.get("a")
    assert entry is not None
    assert (entry.delete_local, entry.time_limit_seconds) == (True, 3600.0)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("delete_local", "no"),
        ("delete_local", 1),
        ("needs_file", 0),
        ("concurrency", 0),
        ("concurrency", True),
        ("concurrency", 1000),
        ("concurrency", "3"),
        ("time_limit_seconds", -1),
        ("time_limit_seconds", "5"),
        ("time_limit_seconds", float("nan")),
        ("time_limit_seconds", float("inf")),
    ],
)
def test_invalid_attribute_is_ignored_and_logged(attribute: str, value: Any) -> None:
    sink, registry = Duck(), SinkRegistry()
    setattr(sink, attribute, value)
    with structlog.testing.capture_logs() as lines:
        registry.register("a", sink)
    entry = registry.get("a")
    assert entry is not None
    assert entry == Entry("a", sink, entry.runner)
    assert [(line["event"], line["attribute"]) for line in lines] == [("sink_attribute_not_used", attribute)]


def test_composite_with_method_is_one_sink() -> None:
    """A composite that does something of its own is one sink."""

    class Only(CompositeSink):
        async def on_recording_complete(self, metadata: Any) -> None:
            if metadata.name:
                await super().on_recording_complete(metadata)

    archive = ObjectStoreSink("file:///tmp/fastagi-out", delete_local=True)
    registry, sink = SinkRegistry(), Only(WebhookSink("https://h"), archive)
    assert registry.register("only", sink) == ("only",)
    entry = registry.get("only")
    assert entry is not None
    assert entry == Entry("only", sink, entry.runner, time_limit_seconds=3600.0, needs_file=True, delete_local=True)
    plain, inner = WebhookSink("https://h"), Only(LocalFileSink())
    assert list(CompositeSink(plain, CompositeSink(inner)).leaves()) == [plain, inner]
    [name] = registry.names(inner)
    assert name.startswith("object:Only:")


def test_child_may_not_take_used_name() -> None:
    """A child may not take the name of another sink."""
    registry = SinkRegistry()
    [name] = registry.register("group", CompositeSink(LocalFileSink()))
    other = SinkRegistry()
    other.register(name, Duck())
    with pytest.raises(ConfigError, match="there is a sink 'group/LocalFileSink"):
        other.register("group", CompositeSink(LocalFileSink()))


def test_later_registration_keeps_the_name() -> None:
    """An object that is registered later keeps that name."""
    registry, sink = SinkRegistry(), Duck()
    [held] = registry.names(sink)
    [name] = registry.register("group", CompositeSink(sink))
    registry.release(held)
    assert registry.names(sink) == (name,)
