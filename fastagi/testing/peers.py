"""Asterisk's part without an Asterisk: `ScriptedAgi` toward a FastAGI server, `ScriptedAmi` toward a manager client."""

from fastagi.testing.fake_calls import FakeCalls, FakeChannel, FakeMonitor
from fastagi.testing.scripted_agi import ScriptedAgi
from fastagi.testing.scripted_ami import ScriptedAmi

__all__ = ["FakeCalls", "FakeChannel", "FakeMonitor", "ScriptedAgi", "ScriptedAmi"]
