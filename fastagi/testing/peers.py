"""Fake Asterisk: `ScriptedAgi` calls a FastAGI server, `ScriptedAmi` serves a manager client."""

from fastagi.testing.fake_calls import FakeCalls, FakeChannel, FakeMonitor
from fastagi.testing.scripted_agi import ScriptedAgi
from fastagi.testing.scripted_ami import ScriptedAmi

__all__ = ["FakeCalls", "FakeChannel", "FakeMonitor", "ScriptedAgi", "ScriptedAmi"]
