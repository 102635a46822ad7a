"""The AGI server on uvloop when file descriptors run out, by connections and by files of a handler."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

SERVER = """
import asyncio, json, os, resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import uvloop
from fastagi.agi import AgiServer
from fastagi.agi.descriptors import Descriptors

async def handle(call):
    await call.verbose("served")

def refusal(reason):
    return b'SET VARIABLE "WHY" "%s"\\n' % reason.encode()

async def main():
    descriptors = Descriptors()
    server = AgiServer(handle, port=0, descriptors=descriptors, refusal=refusal)
    await server.start()
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    told = {"sessions": server.sessions, "refused": descriptors.refused_agi, "scarce": descriptors.scarce}
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    descriptors._last = 0.0
    descriptors.look()
    told["noticed"] = descriptors.scarce
    for number in held:
        os.close(number)
    print(json.dumps(told), flush=True)
    await server.stop(0)

uvloop.run(main())
"""

CALLS = 600

CLIENT = """
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
port, calls = map(int, sys.argv[1:])
links = []
for n in range(calls):
    links.append(socket.create_connection(("127.0.0.1", port)))
    links[-1].settimeout(20)
    links[-1].sendall(b"agi_network: yes\\nagi_network_script: x\\nagi_uniqueid: %d\\n\\n" % n)
said = [link.recv(200) for link in links]
print(sum(s.startswith(b"VERBOSE") for s in said), sum(s.startswith(b"SET VARIABLE") for s in said))
print(sum(s.endswith(b"failure\\n") for s in said))
"""


async def test_sessions_leave_a_reserve(tmp_path) -> None:
    """Calls beyond the last descriptors were closed without a word: AGISTATUS=SUCCESS, and no line in the log."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ}
    )
    assert server.stdout is not None
    assert server.stdin is not None
    try:
        port = (await server.stdout.readline()).decode().strip()
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, port, str(CALLS), stdout=subprocess.PIPE
        )
        async with asyncio.timeout(60):
            out, _ = await client.communicate()
        served, told, failed = map(int, out.split())
        server.stdin.write(b"\n")
        async with asyncio.timeout(20):
            noted = (await server.stdout.read()).decode()
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()
    assert served + told == CALLS
    assert failed == told
    assert 100 < served < 256 - 64
    assert f'"refused": {told}, "scarce": true, "noticed": true' in noted.splitlines()[-1]
