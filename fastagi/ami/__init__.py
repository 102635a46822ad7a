"""Asterisk's manager interface (AMI): panoramisk's API over a connection that holds.

`wire` is the codec (pure), `protocol` one connection; `link` keeps a connection up for ever. `Manager` is the public
class, `actions` the actions that a recorder sends. Recordings are unknown here.
"""

from fastagi.ami.backoff import Backoff
from fastagi.ami.callbacks import Subscription
from fastagi.ami.events import RECORDER_EVENTS, AmiEvent, ChannelRow, Headers, Party
from fastagi.ami.manager import Manager
from fastagi.ami.wire import WireError

__all__ = [
    "RECORDER_EVENTS",
    "AmiEvent",
    "Backoff",
    "ChannelRow",
    "Headers",
    "Manager",
    "Party",
    "Subscription",
    "WireError",
]
