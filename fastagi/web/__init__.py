"""HTTP: health, metrics, the API and the console. Beside the handlers: it asks the recorder, and decides nothing.

`HttpServer` is what the app starts; `Observations` is what it has to hand to the journal and the courier before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastagi.exports import exports

__all__ = ["HttpServer", "Observations", "WebDependencies"]

if TYPE_CHECKING:
    from fastagi.web.counters import Observations
    from fastagi.web.dependencies import WebDependencies
    from fastagi.web.server import HttpServer
else:
    __getattr__, __dir__ = exports(
        __name__,
        __all__,
        {
            "fastagi.web.counters": ["Observations"],
            "fastagi.web.server": ["HttpServer"],
            "fastagi.web.dependencies": ["WebDependencies"],
        },
    )
