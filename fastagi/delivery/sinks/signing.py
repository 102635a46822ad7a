"""Secrets and signatures of Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

from fastagi.errors import BadArgument

WHSEC = "whsec_"
"""Prefix of a secret that is base64."""

SECRET_BYTES = 32
"""Length of a new secret: the specification wants 24 to 64."""


def standard_key(secret: str) -> bytes:
    """Return the key of a Standard Webhooks secret: ``whsec_`` and base64, otherwise the text's own bytes.

    Padding may be missing, as in the official libraries.

    :raises BadArgument: ``whsec_`` is followed by what is no base64, or by nothing
    """
    if not secret.startswith(WHSEC):
        return secret.encode()
    text = secret.removeprefix(WHSEC).rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise BadArgument(f"signing_secret starts with {WHSEC} but is not base64 after it: `fastagi secret` makes one")
    return key


def new_secret() -> str:
    """Make a signing secret that every Standard Webhooks library takes as it is."""
    return WHSEC + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def standard_signature(key: bytes, signed: bytes) -> str:
    """Return one signature of the header ``webhook-signature``."""
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def signing_secrets(signing_secret: object) -> list[str]:
    """Return the given secrets: none, one or several.

    :raises BadArgument: they are no texts, or one of several is empty
    """
    given = [signing_secret] if isinstance(signing_secret, str) else signing_secret
    if not isinstance(given, (list, tuple)):
        raise BadArgument(f"signing_secret must be text or a list of texts, not {type(given).__name__}")
    if given == [""]:
        return []
    for secret in given:
        if not isinstance(secret, str):
            raise BadArgument(f"signing_secret must be text or a list of texts, not of {type(secret).__name__}")
        if not secret:
            raise BadArgument("signing_secret: one of several is empty: leave it out")
    return list(given)
