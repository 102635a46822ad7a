"""What tests, the demo and users need to try a recorder: a real Asterisk in a folder, real SIP calls, scripted peers.

`AsteriskServer` is a real Asterisk; `SippCall` a real SIP call into it; `ScriptedAgi` and `ScriptedAmi` play Asterisk's
part without one. Nothing here is imported by the server itself.
"""

from fastagi.testing.asterisk import AsteriskServer

__all__ = ["AsteriskServer"]
