"""Finds the `App` that ``--app module:attr`` names. A fault, inside the user's module too, is reported in one line."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from fastagi.app.app import App
from fastagi.errors import ConfigError, FastAGIError


def load_app(name: str, folder: Path) -> App:
    """Return the App of that name; a function without parameters is called for it.

    :param name: ``module:attr``; both may have dots
    :param folder: the folder to look for modules in first
    :raises ConfigError: there is none, or its module does not run; the text says where
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute) or module_name.startswith("."):
        raise ConfigError(f"--app {name!r}: write MODULE:ATTR, such as survey:app")
    if module_name.endswith(".py") or "/" in module_name:
        stem = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigError(f"--app {name!r}: name the module, not its file: {stem}:{attribute}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name and (module_name == exc.name or module_name.startswith(exc.name + ".")):
            raise ConfigError(f"--app {name!r}: there is no module {exc.name!r} in {folder} or installed") from None
        raise ConfigError(f"--app {name!r}: {_place(exc)}") from None
    except FastAGIError as exc:
        raise ConfigError(f"--app {name!r}: {_place(exc)}") from None
    except Exception as exc:
        raise ConfigError(f"--app {name!r}: {_place(exc)}") from None
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            apps = sorted(k for k, v in vars(sys.modules[module_name]).items() if isinstance(v, App))
            there = f"; it has the App {', '.join(apps)}" if apps else ""
            raise ConfigError(f"--app {name!r}: module {module_name} has no {attribute!r}{there}") from None
    if callable(found) and not isinstance(found, App | type):
        try:
            found = found()
        except Exception as exc:
            raise ConfigError(f"--app {name!r}: {_place(exc)}") from None
    if not isinstance(found, App):
        raise ConfigError(f"--app {name!r}: is a {type(found).__name__}, not a fastagi.App")
    return found


def _place(exc: Exception) -> str:
    """Return the error and its place in the user's code, in one line."""
    what = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    if isinstance(exc, SyntaxError):
        return f"{exc.filename}, line {exc.lineno}: {type(exc).__name__}: {exc.msg}"
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if not f.filename.startswith("<")]
    own = [f for f in frames if Path(f.filename).parent != Path(__file__).parent and "/importlib/" not in f.filename]
    if not own:
        return what
    return f"{own[-1].filename}, line {own[-1].lineno}: {what}"
