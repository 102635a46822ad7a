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
    :param sources: module -> names that are there. Such a module can be had as an attribute, too, as type checkers
        believe: ``import fastagi; fastagi.errors.Hangup``
    """
    homes = {name: module for module, names in sources.items() for name in names}
    below = f"{package}."
    children = {m.removeprefix(below).split(".")[0] for m in sources if m.startswith(below)}

    def get(name: str) -> Any:
        if name in homes:
            value = getattr(import_module(homes[name]), name)
        elif name in children:
            for module in sources:
                if f"{module}.".startswith(f"{below}{name}."):
                    import_module(module)
            value = sys.modules[below + name]
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        setattr(sys.modules[package], name, value)  # asked for once: from now on it is there
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public, *children})

    return get, names
