"""Who may do what: bearer tokens from the settings, and three roles, each with the rights of the ones before it.

A token is compared by its digest and with every one there is, so that the time it takes tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import structlog
from aiohttp import web

from fastagi.settings import TokenSettings
from fastagi.web.answers import Refusal

log = structlog.get_logger(__name__)

NO_TOKENS = (
    "the API has no tokens yet: add [[http.tokens]] with name, token (16 characters or more) and role "
    "(viewer, operator or admin) to the settings and restart"
)

LONGEST_TOKEN = 1000

LOGGED_PER_MINUTE = 20
"""Refused requests that are logged one by one: enough to see who tries, too few to fill the disk."""


class Role(IntEnum):
    """What a token may do. A higher one may do all that a lower one may."""

    VIEWER = 1  # look and listen
    OPERATOR = 2  # start, stop, pause; deliver again
    ADMIN = 3  # listen to encrypted recordings, hold and delete

    @property
    def word(self) -> str:
        """As it is written in the settings."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Who:
    """Whose token it was. :param name: as in the settings; goes to the log and the journal"""

    name: str
    role: Role


class Tokens:
    """The tokens there are."""

    def __init__(self, tokens: Iterable[TokenSettings]) -> None:
        self._known = [(_digest(t.token.get_secret_value()), Who(t.name, Role[t.role.upper()])) for t in tokens]
        self._minute = 0
        self._logged = 0

    def who(self, request: web.Request) -> Who:
        """Whose request it is.

        :raises Refusal: 401, no token, or none of ours
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
            self._note(request)
            raise Refusal(
                401, "that token is not known here", WWW_Authenticate='Bearer realm="fastagi", error="invalid_token"'
            )
        return found

    def _note(self, request: web.Request) -> None:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            if self._logged > LOGGED_PER_MINUTE:
                log.warning("http_tokens_refused_not_logged", count=self._logged - LOGGED_PER_MINUTE)
            self._minute, self._logged = minute, 0
        self._logged += 1
        if self._logged <= LOGGED_PER_MINUTE:
            log.warning("http_token_refused", peer=request.remote, path=request.path[:200])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
