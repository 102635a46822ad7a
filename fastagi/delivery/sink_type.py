"""Types of `[[sinks]]`: the class of each name, and the sink that a section of the settings describes.

The types are the modules of `fastagi.delivery.sinks` that register a class. All of them are imported when the first one
is needed.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fastagi.delivery import sinks
from fastagi.delivery.sink import RecordingSink
from fastagi.errors import BadArgument, ConfigError
from fastagi.settings import SinkSettings


class SinkOptions(BaseModel):
    """Keys that a type has beside those of every `[[sinks]]`. Each field's description is its line in the guide."""

    model_config = ConfigDict(extra="forbid", frozen=True)


O = TypeVar("O", bound=SinkOptions)  # noqa: E741
T = TypeVar("T", bound="type[ConfiguredSink[Any]]")


class ConfiguredSink(RecordingSink, Generic[O]):
    """A sink that settings can describe. It never blocks, and runs on the event loop of the server.

    :cvar kind: name of the type, from `sink_type`
    :cvar options: model of its keys
    :cvar summary: one sentence for the guide
    """

    kind: ClassVar[str]
    options: ClassVar[type[SinkOptions]]
    summary: ClassVar[str]

    @classmethod
    def from_options(cls, options: O, key: str) -> Self:
        """Make the sink.

        :param options: checked; an instance of the type's model
        :param key: the section in error messages, such as ``sinks[crm]``
        :raises BadArgument: an option cannot be used; :raises ConfigError: what it needs is missing
        """
        return cls(**options.model_dump())

    async def probe(self) -> str:
        """Check for `fastagi doctor` that the destination can be reached, and return a line about it. Deliver nothing.

        :raises SinkError: the destination cannot be reached; `refused` when it answers and does not take this server
        """
        return f"{self!r}: nothing to reach"

    def remedy(self, retry_hours: float) -> str:
        """Return the remedy for a destination that does not answer.

        :param retry_hours: how long deliveries are tried again
        """
        return "look at its settings"

    def remedy_of_refusal(self, *, pinged: bool) -> str:
        """Return the remedy for a destination that answered and refused.

        :param pinged: it refused a ping, not a probe
        """
        return "look at its settings"


_TYPES: dict[str, type[ConfiguredSink[Any]]] = {}


def sink_type(name: str) -> Callable[[T], T]:
    """Register the decorated class as the type of that name. Subclasses of it are not registered."""

    def register(cls: T) -> T:
        cls.kind = name
        _TYPES[name] = cls
        return cls

    return register


@cache
def sink_types() -> Mapping[str, type[ConfiguredSink[Any]]]:
    """Return the class of each type, by name."""
    for module in pkgutil.iter_modules(sinks.__path__):
        import_module(f"{sinks.__name__}.{module.name}")
    return dict(sorted(_TYPES.items()))


def is_built_in(sink: object) -> bool:
    """Return whether the object is of a registered class. A subclass has code of its own."""
    return type(sink) in sink_types().values()


def build_sink(settings: SinkSettings) -> ConfiguredSink[Any]:
    """Return the sink that a ``[[sinks]]`` section describes.

    :raises ConfigError: no such type, or an option that its type does not have, lacks, or cannot use; one fault a line
    """
    key = f"sinks[{settings.name}]"
    made_by = sink_types().get(settings.type)
    if made_by is None:
        raise ConfigError(
            f"{key}.type = {settings.type!r}: there is no such type of sink; use one of {', '.join(sink_types())}"
        )
    try:
        options = made_by.options.model_validate(settings.options)
    except ValidationError as exc:
        raise ConfigError("\n".join(_fault(key, made_by, error) for error in exc.errors())) from None
    try:
        return made_by.from_options(options, key)
    except BadArgument as exc:
        raise ConfigError(f"{key}: {exc}") from None
    except ConfigError as exc:
        text = str(exc)
        raise ConfigError(text if text.startswith(key) else f"{key}: {text}") from None


def _fault(key: str, made_by: type[ConfiguredSink[Any]], error: Any) -> str:
    model = made_by.options
    name = ".".join(str(part) for part in error["loc"])
    field = model.model_fields.get(str(error["loc"][0]) if error["loc"] else "")
    if error["type"] == "extra_forbidden":
        allowed = ", ".join([*SinkSettings.model_fields, *model.model_fields])
        return f"{key}.{name}: a sink of type {made_by.kind} has no such key; allowed are {allowed}"
    if error["type"] == "missing":
        return f"{key}.{name}: is missing ({field.description if field else ''})"
    secret = "secret" in name
    shown = "" if secret or isinstance(error.get("input"), (dict, list)) else f" = {error.get('input')!r}"
    return f"{key}.{name}{shown}: {error['msg']}" + (f" ({field.description})" if field else "")
