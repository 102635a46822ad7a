"""FastAGI: our own server and codec.

`AgiServer` accepts Asterisk's connections and awaits a handler with a `Channel` for each. `codec` is the wire without
I/O, `session` one connection, `channel` and `commands` what handlers call, `blocking` and `pyst2` the same for plain
functions in threads. No routes, no recordings: those are the app's.
"""

from fastagi.agi.blocking import BlockingChannel, run_blocking
from fastagi.agi.channel import Channel
from fastagi.agi.codec import Reply
from fastagi.agi.server import AgiServer
from fastagi.agi.session import Session
from fastagi.agi.threads import HandlerThreads

__all__ = ["AgiServer", "BlockingChannel", "Channel", "HandlerThreads", "Reply", "Session", "run_blocking"]
