"""fastagi.delivery.sink_type: every type of `[[sinks]]` is complete, and a name that is no type is refused."""

from __future__ import annotations

import pytest

from fastagi.delivery.sink import RecordingSink
from fastagi.delivery.sink_type import build_sink, is_built_in, sink_types
from fastagi.delivery.sinks.webhook import WebhookSink
from fastagi.errors import ConfigError
from fastagi.settings import SinkSettings


def test_registered_types() -> None:
    assert {"command", "local", "objectstore", "vcon", "webhook"} <= {*sink_types()}


@pytest.mark.parametrize("name", list(sink_types()))
def test_types_describe_themselves(name: str) -> None:
    """The guide's page of settings and `fastagi doctor` say no more of a type than its class does."""
    found = sink_types()[name]
    assert issubclass(found, RecordingSink)
    assert found.kind == name
    assert found.summary.endswith(".")
    assert all(field.description for field in found.options.model_fields.values())
    assert not {*found.options.model_fields} & {*SinkSettings.model_fields}, "a key of all sinks would win"


def test_unknown_type_names_the_known() -> None:
    with pytest.raises(ConfigError, match=r"sinks\[crm\]\.type = 'ftp': .* use one of .*webhook"):
        build_sink(SinkSettings(name="crm", type="ftp"))


def test_subclass_is_not_built_in() -> None:
    """A subclass has code of its own, which may block the server's loop."""

    class Mine(WebhookSink):
        pass

    assert is_built_in(WebhookSink("https://h/x"))
    assert not is_built_in(Mine("https://h/x"))
