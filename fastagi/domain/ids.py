"""Identifiers that sort by time, are unique without coordination, and are safe in a file name and a URL."""

from __future__ import annotations

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str, now: float, noise: bytes) -> str:
    """Return ``rec-01jd3…``: 48 bits of milliseconds and 80 bits of noise in Crockford's base 32, lower case.

    :param prefix: kind of the thing: ``rec``, ``dlv``, ``evt``
    :param now: unix seconds
    :param noise: 10 random bytes
    """
    value = (int(now * 1000) & ((1 << 48) - 1)) << 80 | int.from_bytes(noise[:10], "big")
    return prefix + "-" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
