"""Acts as a busy Asterisk's manager: takes a login, then sends events as fast as the client reads them.

    python pump.py PORT COUNT [--chunk N] [--filters]

COUNT is rounded up to whole calls of 20 events, whose last is MixMonitorStop. A client has read everything when it has
seen COUNT/20 of those. Any action is answered; event filters are taken but not carried out, so that a client shows what
unwanted events cost it, unless `--filters` is given. Serves one connection and ends.
"""

from __future__ import annotations

import argparse
import re
import socket
import threading
import time

CALLS_PER_WRITE = 5

_CHANNEL = (
    "Channel: PJSIP/trunk-amsterdam-{call:08x}\r\nChannelState: 6\r\nChannelStateDesc: Up\r\n"
    "CallerIDNum: +3120{call:08d}\r\nCallerIDName: Käse & Söhne, Büro Süd\r\nConnectedLineNum: 311\r\n"
    "ConnectedLineName: Second Line Support\r\nLanguage: nl\r\nAccountCode: customer-{call:06d}\r\n"
    "Context: incoming-amsterdam\r\nExten: 3110\r\nPriority: 7\r\nUniqueid: pbx-ams-02-1800000000.{call}\r\n"
    "Linkedid: pbx-ams-02-1800000000.{call}\r\n"
)
_BRIDGE = (
    "BridgeUniqueid: 0b9d8f52-{call:08x}-4a11-8d5e-aabbccddeeff\r\nBridgeType: basic\r\n"
    "BridgeTechnology: simple_bridge\r\nBridgeCreator: <unknown>\r\nBridgeName: <unknown>\r\nBridgeNumChannels: 2\r\n"
    "BridgeVideoSourceMode: none\r\n"
)
_DIALLED = "".join("Dest" + line + "\r\n" for line in _CHANNEL.replace("trunk", "desk").split("\r\n") if line)


def _event(name: str, *parts: str) -> str:
    head = f"Event: {name}\r\nPrivilege: call,all\r\nTimestamp: 1800000000.654321\r\nSystemName: pbx-ams-02\r\n"
    return head + "".join(parts) + "\r\n"


def _set(variable: str, value: str) -> str:
    return _event("VarSet", _CHANNEL, f"Variable: {variable}\r\nValue: {value}\r\n")


def _step(application: str, data: str) -> str:
    return _event("Newexten", _CHANNEL, f"Extension: 3110\r\nApplication: {application}\r\nAppData: {data}\r\n")


# one call as Asterisk 20 tells it: 20 events, 11 to 33 headers each
CALL = "".join(
    (
        _event("Newchannel", _CHANNEL),
        _set("RECORDING", "/var/spool/asterisk/monitor/1800000000.{call}.wav"),
        _step("Set", "RECORDING=/var/spool/asterisk/monitor/1800000000.{call}.wav"),
        _step("AGI", "agi://127.0.0.1:4573/record/start,filename=1800000000.{call}"),
        _set("AGISTATUS", "SUCCESS"),
        _event("MixMonitorStart", _CHANNEL),
        _event("Newstate", _CHANNEL),
        _event("DialBegin", _CHANNEL, _DIALLED, "DialString: 3110\r\n"),
        _event("DialEnd", _CHANNEL, _DIALLED, "DialStatus: ANSWER\r\n"),
        _event("BridgeCreate", _BRIDGE),
        _event("BridgeEnter", _BRIDGE, _CHANNEL),
        _event("RTCPSent", _CHANNEL, "SSRC: 0x1b8b4567\r\nPT: 200(SR)\r\nTo: 192.0.2.9:10001\r\nSentPackets: 1000\r\n"),
        _set("BRIDGEPEER", "PJSIP/desk-{call:08x}"),
        _set("RTPAUDIOQOS", "ssrc=1;themssrc=2;lp=0;rxjitter=0.001;rxcount=1000;txjitter=0.002;txcount=1000;rlp=0"),
        _event("BridgeLeave", _BRIDGE, _CHANNEL),
        _event("BridgeDestroy", _BRIDGE),
        _event("HangupRequest", _CHANNEL, "Cause: 16\r\n"),
        _event("SoftHangupRequest", _CHANNEL, "Cause: 16\r\n"),
        _event("Hangup", _CHANNEL, "Cause: 16\r\nCause-txt: Normal Clearing\r\n"),
        _event("MixMonitorStop", _CHANNEL),
    )
)
EVENTS_PER_CALL = CALL.count("Event: ")


class Client(threading.Thread):
    """Reads actions and answers them while the events go out; a lock keeps an answer out of the middle of an event."""

    def __init__(self, connection: socket.socket, filters: bool) -> None:
        super().__init__(daemon=True)
        self.connection = connection
        self.lock = threading.Lock()
        self.logged_in = threading.Event()
        self.filters: list[re.Pattern[str]] | None = [] if filters else None

    def send(self, data: bytes, chunk: int = 0) -> None:
        with self.lock:
            step = chunk or len(data)
            for at in range(0, len(data), step):
                self.connection.sendall(data[at : at + step])

    def run(self) -> None:
        held = b""
        try:
            while data := self.connection.recv(65536):
                *whole, held = (held + data).split(b"\r\n\r\n")
                for action in whole:
                    self._answer(action.decode())
        except OSError:
            pass

    def _answer(self, action: str) -> None:
        headers = dict(line.partition(": ")[::2] for line in action.split("\r\n"))
        action_id = f"ActionID: {headers.get('ActionID', '')}\r\n"
        name = headers.get("Action", "").lower()
        if name == "filter" and self.filters is not None:
            expression = headers["Filter"].replace("[^[:space:]]", r"[^\s]").replace("[[:space:]]", r"\s")
            self.filters.append(re.compile(expression))
        if name == "coreshowchannels":
            said = f"Response: Success\r\n{action_id}EventList: start\r\n\r\n"
            said += f"Event: CoreShowChannelsComplete\r\n{action_id}EventList: Complete\r\n\r\n"
        else:
            said = f"Response: Success\r\n{action_id}Message: Done\r\n\r\n"
        if name == "login":
            said += "Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n"
        self.send(said.encode())
        if name == "login":
            self.logged_in.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--chunk", type=int, default=0, help="send so many bytes at a time")
    parser.add_argument("--filters", action="store_true", help="carry out event filters, as Asterisk does")
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", options.port))
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"Asterisk Call Manager/9.0.0\r\n")
    client = Client(connection, options.filters)
    client.start()
    client.logged_in.wait(30)
    time.sleep(0.3)  # the client sets its filters and asks for channels
    calls = -(-options.count // EVENTS_PER_CALL)
    blocks = []
    for first in range(0, calls, CALLS_PER_WRITE):
        text = "".join(CALL.format(call=call) for call in range(first, min(first + CALLS_PER_WRITE, calls)))
        if client.filters:
            events = [e + "\r\n\r\n" for e in text.split("\r\n\r\n")[:-1]]
            text = "".join(e for e in events if any(f.search(e) for f in client.filters))
        blocks.append(text.encode())
    try:
        for block in blocks:
            client.send(block, options.chunk)
        client.join(120)
    except OSError:
        pass


if __name__ == "__main__":
    main()
