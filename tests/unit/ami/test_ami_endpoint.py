"""Which Asterisk is on this machine, and which answer says that it has died."""

from __future__ import annotations

import errno

import pytest

from fastagi.ami.endpoint import Endpoint
from fastagi.ami.tls import nothing_listens


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *((host, True) for host in ("127.0.0.1", "127.0.3.4", "::1", "localhost", "LocalHost")),
        *((host, False) for host in ("192.0.2.1", "2001:db8::1", "pbx.example.com", "0.0.0.0")),
    ],
)
def test_loopback_hosts_are_this_machine(host: str, here: bool) -> None:
    assert Endpoint(host, 5038, "user", "secret").loopback is here


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), True),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1'), [Errno 111] Connect call failed"),
            True,
        ),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1'), [Errno 110] Connect call failed"),
            False,
        ),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (OSError("no route"), False),
        (ValueError("[Errno 111]"), False),
    ],
)
def test_only_refusal_everywhere_means_nothing_listens(error: Exception, refused: bool) -> None:
    assert nothing_listens(error) is refused
