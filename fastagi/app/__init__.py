"""The composition root: builds everything from settings, starts it, recovers, drains."""

from fastagi.app.app import App

__all__ = ["App"]
