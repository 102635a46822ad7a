"""Address, user and time limits of an Asterisk's manager interface. Frozen data."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field

from fastagi.ami.backoff import Backoff


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and user of an Asterisk's manager interface.

    :param tls: True verifies the peer against the system's authorities
    :param mask: `Events` of the login: ``on``, ``off``, or classes
    """

    host: str
    port: int
    username: str
    secret: str = field(repr=False)
    tls: bool | ssl.SSLContext = False
    mask: str = "on"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """True for an address of this machine alone: 127.0.0.0/8, ::1, or localhost."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class Timing:
    """Time limits in seconds; `Manager` describes each."""

    action: float = 10.0
    connect: float = 10.0
    login: float = 10.0
    boot: float = 3.0
    ping_interval: float = 10.0
    ping: float = 5.0
    refused: float = 60.0
    backoff: Backoff = field(default_factory=Backoff)
