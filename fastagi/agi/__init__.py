"""FastAGI server and codec.

`AgiServer` accepts Asterisk's connections and awaits a handler with a `Channel` for each. `codec` parses the protocol
without I/O, `session` is one connection. Handlers call `channel` and `commands`; plain functions in threads call
`blocking` and `pyst2`. Routes and recordings belong to `fastagi.app`.
"""

from fastagi.agi.blocking import BlockingChannel, run_blocking
from fastagi.agi.channel import Channel
from fastagi.agi.codec import Reply
from fastagi.agi.server import AgiServer
from fastagi.agi.session import Session
from fastagi.agi.threads import HandlerThreads

__all__ = ["AgiServer", "BlockingChannel", "Channel", "HandlerThreads", "Reply", "Session", "run_blocking"]
