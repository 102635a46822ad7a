"""Public names that a package imports when they are first asked for: how a package's ``__init__`` stays light.

Importing any module runs the ``__init__`` of all packages above it, so one that imports what it exports makes
``fastagi --version`` read SQLAlchemy. A package with light and heavy modules says instead, by PEP 562::

    __all__ = ["App"]

    if TYPE_CHECKING:  # for type checkers, editors and import-linter
        from fastagi.app.app import App
    else:
        __getattr__, __dir__ = exports(__name__, __all__, {"fastagi.app.app": ["App"]})

Nothing changes for who imports: ``from fastagi.app import App``, ``from fastagi.app import *``, ``dir()`` and type
checkers see all names. No exported name may be that of a module of the package: whichever is imported first would have
it. A test holds the two lists and ``__all__`` against each other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def exports(
    package: str, public: Sequence[str], sources: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    :param package: its ``__name__``
    :param public: its ``__all__``
    :param sources: module -> names that are there. Modules of the package can be had as attributes, too:
        ``import fastagi; fastagi.errors.Hangup``
    """
    homes = {name: module for module, names in sources.items() for name in names}

    def get(name: str) -> Any:
        if name in homes:
            value = getattr(import_module(homes[name]), name)
        else:
            try:
                value = import_module(f"{package}.{name}")
            except ModuleNotFoundError as exc:
                if exc.name != f"{package}.{name}":
                    raise
                text = f"module {package!r} has no attribute {name!r}"
                raise AttributeError(text, name=name, obj=sys.modules[package]) from None
        setattr(sys.modules[package], name, value)  # asked for once: from now on it is there
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public})

    return get, names
