"""Access control: bearer tokens from the settings, and three roles, each with the rights of the ones before it.

A token is compared by its digest and with every known one, so that the time the check takes reveals nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from aiohttp import web

from fastagi.settings import TokenSettings
from fastagi.web.malformed import RateLimitedLog
from fastagi.web.responses import Refusal

NO_TOKENS = (
    "the API has no tokens yet: add [[http.tokens]] with name, token (16 characters or more) and role "
    "(viewer, operator or admin) to the settings and reload (systemctl reload fastagi, or SIGHUP)"
)

LONGEST_TOKEN = 1000


class Role(IntEnum):
    """Rights of a token. A higher role may do all that a lower one may."""

    VIEWER = 1  # read and listen
    OPERATOR = 2  # also start, stop, pause; deliver again
    ADMIN = 3  # also listen to encrypted recordings, hold and delete

    @property
    def word(self) -> str:
        """Return the role as the settings write it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Who:
    """The owner of a token.

    :param name: as in the settings; goes to the log and the journal
    """

    name: str
    role: Role


class Tokens:
    """The accepted tokens."""

    def __init__(self, tokens: Iterable[TokenSettings]) -> None:
        self.replace(tokens)
        self._note = RateLimitedLog(__name__, "http_token_refused")

    def replace(self, tokens: Iterable[TokenSettings]) -> None:
        """Accept these tokens, and no others, from the next request on."""
        self._known = [(_digest(t.token.get_secret_value()), Who(t.name, Role[t.role.upper()])) for t in tokens]

    def who(self, request: web.Request) -> Who:
        """Return the owner of a request's token.

        :raises Refusal: 401, no token, or an unknown one
        """
        if not self._known:
            raise Refusal(401, NO_TOKENS, WWW_Authenticate='Bearer realm="fastagi"')
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refusal(401, "send a token: Authorization: Bearer ...", WWW_Authenticate='Bearer realm="fastagi"')
        digest = _digest(token.strip()[:LONGEST_TOKEN])
        found: Who | None = None
        for known, who in self._known:
            if hmac.compare_digest(known, digest):
                found = who
        if found is None:
            self._note(peer=request.remote, path=request.path[:200])
            raise Refusal(
                401, "that token is not known here", WWW_Authenticate='Bearer realm="fastagi", error="invalid_token"'
            )
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
