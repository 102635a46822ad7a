"""Codecs of finished files. A module named after a format encodes it; libsndfile encodes every other format.

Such a module has `open_writer(output, wanted)`. One that uses a library of the machine also has `LIBRARY_NAME`,
`PACKAGE` (Debian's) and `library()`, which returns None where the library is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from fastagi.audio.codecs.base import Wanted, Writer
from fastagi.audio.codecs.sndfile import SndFile
from fastagi.audio.output import Counter, Output
from fastagi.domain.formats import FORMATS


def open_writer(output: Output | Counter, wanted: Wanted) -> Writer:
    """Return what encodes one file of `wanted` into `output`.

    :raises AudioError: the codec refuses this
    """
    codec = _codec(wanted.form.name)
    if codec is None:
        return SndFile(output, wanted)
    writer: Writer = codec.open_writer(output, wanted)
    return writer


def machine_libraries() -> Iterator[tuple[str, str, str, bool]]:
    """Yield (format, library, Debian package, whether it is installed) for codecs that use one. Blocking."""
    for name in FORMATS:
        codec = _codec(name)
        if codec is not None and hasattr(codec, "PACKAGE"):
            yield name, codec.LIBRARY_NAME, codec.PACKAGE, codec.library() is not None


@cache
def _codec(file_format: str) -> ModuleType | None:
    name = f"{__name__}.{file_format}"
    return import_module(name) if find_spec(name) is not None else None
