"""HTTP: health, metrics, the API and the console. Beside the handlers: it asks the recorder, and decides nothing.

`HttpServer` is what the app starts; `Observations` is what it has to hand to the journal and the courier before that.
"""

from fastagi.web.observed import Observations
from fastagi.web.server import HttpServer
from fastagi.web.sources import Sources

__all__ = ["HttpServer", "Observations", "Sources"]
