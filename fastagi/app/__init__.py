"""The composition root: builds everything from settings, starts it, recovers, drains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastagi.exports import exports

__all__ = ["App"]

if TYPE_CHECKING:
    from fastagi.app.app import App
else:
    __getattr__, __dir__ = exports(
        __name__,
        __all__,
        {
            "fastagi.app.app": ["App"],
        },
    )
