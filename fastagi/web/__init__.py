"""HTTP: health, metrics, the API and the console. Calls the recorder and makes no decisions of its own.

The app starts `HttpServer`. Before that it gives `Observations` to the journal and to the delivery worker.
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
