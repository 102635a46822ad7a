"""Tools to try a recorder, for tests, demo and users: a real Asterisk in a folder, real SIP calls, scripted peers.

`AsteriskServer` is a real Asterisk; `SippCall` and `SippAgent` are real SIP calls into and out of it; `ScriptedAgi` and
`ScriptedAmi` play Asterisk's part without one; `settings_for` gives a server's settings for it. `sound` makes and
compares test audio. Nothing here is imported by the server itself.
"""

from fastagi.testing.ami_session import AmiSession
from fastagi.testing.asterisk import AsteriskServer
from fastagi.testing.peers import ScriptedAgi, ScriptedAmi
from fastagi.testing.server_settings import settings_data, settings_for, write_settings
from fastagi.testing.sip import SippAgent, SippCall

__all__ = [
    "AmiSession",
    "AsteriskServer",
    "ScriptedAgi",
    "ScriptedAmi",
    "SippAgent",
    "SippCall",
    "settings_data",
    "settings_for",
    "write_settings",
]
