"""The program's version in `/metrics` and in the OpenAPI text."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("fastagi-recorder")
    except PackageNotFoundError:  # a checkout that is not installed
        return "unknown"


VERSION = _version()
