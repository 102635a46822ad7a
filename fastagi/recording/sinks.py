"""Which sinks a recording goes to, as names: the app's defaults, or those that the call brought."""

from __future__ import annotations

from fastagi.delivery.registry import SinkRegistry
from fastagi.delivery.sink import AnySink


class SinkNames:
    """Names of sinks for new recordings.

    :ivar defaults: names of the sinks that get every recording that says nothing else
    """

    def __init__(self, registry: SinkRegistry, defaults: tuple[str, ...] = ()) -> None:
        self._registry = registry
        self.defaults = defaults

    def names(self, sink: AnySink | str | None) -> tuple[str, ...]:
        """The names that deliveries to `sink` are kept under. Call it once per recording.

        :raises BadArgument: it is no sink, or a name that is not registered
        """
        if sink is None:
            return self.defaults
        return self._registry.names(sink)

    def add_default(self, names: tuple[str, ...]) -> None:
        """Add sinks that get every recording from now on."""
        self.defaults = (*self.defaults, *names)

    def release(self, names: tuple[str, ...]) -> None:
        """There will be no recording for them: objects without a name are forgotten."""
        for name in names:
            self._registry.release(name)
