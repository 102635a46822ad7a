"""The parameters of a recording, checked before anything is sent (seed: bad arguments raise Error)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fastagi.audio import least_bytes
from fastagi.cipher import Cipher
from fastagi.domain.spec import RecordingSpec
from fastagi.errors import BadArgument

LONGEST_WAIT_SECONDS = 7 * 86_400
"""A call of a week; more is a unit mistaken."""


def given(filename: str | os.PathLike[str]) -> str:
    """A file name that was given: the seed requires one (routes and `record_start` make one up).

    :raises BadArgument: none was
    """
    name = os.fspath(filename) if isinstance(filename, os.PathLike) else filename
    if not isinstance(name, str) or not name.strip():
        raise BadArgument(f"filename={filename!r} must be a name, such as calls/{{uniqueid}}")
    return name


def spec_from(options: Mapping[str, Any], cipher: Cipher | None = None) -> RecordingSpec:
    """The checked spec of these parameters.

    :raises BadArgument: an unknown name or a wrong value
    """
    known = RecordingSpec.__dataclass_fields__
    for name in options:
        if name not in known or name == "encryption":
            allowed = ", ".join(n for n in known if n != "encryption")
            raise BadArgument(f"{name} is no parameter of a recording: there are {allowed}")
    if cipher is not None and not (hasattr(cipher, "scheme") and hasattr(cipher, "encrypt_file")):
        raise BadArgument(f"cipher={type(cipher).__name__} is no cipher: use AesCbcCipher, AesGcmCipher or AgeCipher")
    spec = RecordingSpec(**options, encryption=cipher.scheme if cipher is not None else "")
    if spec.byte_limit:
        _must_fit(spec, cipher)
    return spec


def _must_fit(spec: RecordingSpec, cipher: Cipher | None) -> None:
    """:raises BadArgument: max_bytes cannot hold any file; found out at the end, it would be a recording lost"""
    limit = spec.byte_limit
    budget = limit if cipher is None else cipher.plaintext_budget(limit)
    least = least_bytes(spec.file_format, spec.rate, spec.channels)
    if budget < least:
        enough = limit - budget + least
        raise BadArgument(
            f"max_bytes={limit} cannot hold a header and a sample, encryption included: use {enough} or more"
        )
