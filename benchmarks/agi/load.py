"""Plays Asterisk toward a FastAGI server from one thread: sessions in a closed loop, or many that only hold still.

A session connects, sends a header block of 25 lines, and answers every line with ``200 result=0`` until the server
closes. The server's CPU time and memory come from /proc.
"""

from __future__ import annotations

import os
import select
import socket
import time
from dataclasses import dataclass

ANSWER = b"200 result=0\n"
TICKS = os.sysconf("SC_CLK_TCK")


def header(number: int) -> bytes:
    uniqueid = f"{1700000000 + number // 1000}.{number}"
    lines = {
        "network": "yes", "network_script": "bench", "request": "agi://127.0.0.1:4573/bench",
        "channel": f"PJSIP/trunk-{number:08x}", "language": "en", "type": "PJSIP", "uniqueid": uniqueid,
        "version": "22.10.1", "callerid": f"+4420{number:08d}", "calleridname": "Caller Name", "callingpres": "0",
        "callingani2": "0", "callington": "0", "callingtns": "0", "dnid": "2000", "rdnis": "unknown",
        "context": "from-trunk", "extension": "2000", "priority": "3", "enhanced": "0.0", "accountcode": "acct-1",
        "threadid": "140737000000000", "arg_1": uniqueid, "arg_2": "inbound", "arg_3": "queue=sales",
    }  # fmt: skip
    return "".join(f"agi_{name}: {value}\n" for name, value in lines.items()).encode() + b"\n"


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One round.

    :param cpu_us: the server's CPU microseconds per session
    :param p50_ms: median duration of a session; :param p99_ms: of the slowest hundredth
    :param failed: sessions that ended before their fifth command, or could not connect
    """

    cpu_us: float
    p50_ms: float
    p99_ms: float
    failed: int


class Session:
    __slots__ = ("began", "commands", "link", "unsent")

    def __init__(self, number: int, port: int) -> None:
        self.unsent = header(number)
        self.commands = 0
        self.began = time.perf_counter()
        self.link = socket.socket()
        self.link.setblocking(False)
        self.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.link.connect_ex(("127.0.0.1", port))


def run(port: int, pid: int, *, at_once: int, sessions: int, commands: int = 5) -> Outcome:
    """`sessions` of them, `at_once` open at any moment."""
    poll = select.epoll()
    live: dict[int, Session] = {}
    durations: list[float] = []
    failed = started = 0

    def start() -> None:
        nonlocal started
        session = Session(started, port)
        started += 1
        live[session.link.fileno()] = session
        poll.register(session.link.fileno(), select.EPOLLOUT)

    cpu = cpu_seconds(pid)
    for _ in range(min(at_once, sessions)):
        start()
    while live:
        ready = poll.poll(30)
        if not ready:
            failed += len(live)
            break
        for fd, event in ready:
            session = live[fd]
            over = False
            try:
                if event & select.EPOLLIN:
                    data = session.link.recv(65536)
                    if data:
                        asked = data.count(b"\n")
                        session.commands += asked
                        session.link.send(ANSWER * asked)
                    else:
                        over = True
                elif event & select.EPOLLOUT:
                    session.link.send(session.unsent)
                    poll.modify(fd, select.EPOLLIN)
                else:
                    over = True
            except OSError:
                over = True
            if over:
                del live[fd]
                session.link.close()
                failed += session.commands != commands
                durations.append(time.perf_counter() - session.began)
                if started < sessions:
                    start()
    durations.sort()
    return Outcome(
        cpu_us=1e6 * (cpu_seconds(pid) - cpu) / sessions,
        p50_ms=1e3 * durations[len(durations) // 2],
        p99_ms=1e3 * durations[int(len(durations) * 0.99)],
        failed=failed,
    )


def idle_bytes(port: int, pid: int, count: int) -> float:
    """The server's memory for each of `count` sessions whose first command is never answered."""
    before = resident_bytes(pid)
    held = []
    try:
        for number in range(count):
            link = socket.create_connection(("127.0.0.1", port), 10)
            held.append(link)
            link.sendall(header(number))
            if number % 50 == 49:
                link.recv(64, socket.MSG_PEEK)
        for link in held:
            link.settimeout(10)
            link.recv(64, socket.MSG_PEEK)
        return (resident_bytes(pid) - before) / count
    finally:
        for link in held:
            link.close()
