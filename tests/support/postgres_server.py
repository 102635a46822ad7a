"""A real PostgreSQL for tests: its own folder, its own socket, nothing of it left behind.

`postgres_server` starts one per test run (`initdb` refuses to run as root, so then it runs as `postgres` or `nobody`);
`postgres_url` is a fresh database in it. Fixtures: import them into a test module.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_numbers = itertools.count()


class PostgresServer:
    """One server process. `kill` and `restart` are what a failing machine does."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fastagi-pg-"))
        self.port = _free_port()
        self._bin = _binaries()
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged()
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "fastagi", "-A", "trust", "-N", "-E", "UTF8")
        with (self.folder / "data/postgresql.conf").open("a") as conf:
            conf.write(f"listen_addresses = '127.0.0.1'\nport = {self.port}\nmax_connections = 60\n")
            conf.write(f"unix_socket_directories = '{self.folder}'\nfsync = on\nshared_buffers = 32MB\n")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://fastagi@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [f"{self._bin}/postgres", "-D", str(self.folder / "data")],
                stdout=log,
                stderr=log,
                cwd="/",
                **self._as_user(),
            )
        deadline = time.monotonic() + 30
        while subprocess.run(
            [f"{self._bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start:\n" + (self.folder / "log").read_text()[-3000:])
            time.sleep(0.05)

    def stop(self, how: int = signal.SIGINT) -> None:
        """Ends it; SIGINT is its fast shutdown, SIGQUIT its crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(30)

    def restart(self) -> None:
        self.stop(signal.SIGQUIT)
        self.start()

    def sql(self, statement: str, database: str = "postgres") -> str:
        return self._run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "fastagi", "-qAtc", statement, database)

    def create_database(self) -> str:
        """A fresh empty database; its URL."""
        name = f"t{os.getpid()}_{next(_numbers)}"
        self.sql(f"create database {name}")
        return self.url(name)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [f"{self._bin}/{program}", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=60,
            **self._as_user(),
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def _as_user(self) -> dict[str, object]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


def _binaries() -> str:
    """The newest installation that has all of it; a PATH may hold clients only."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True)
    folders += [Path(folder) for folder in os.get_exec_path()]
    for folder in folders:
        if all((folder / program).exists() for program in ("initdb", "postgres", "psql", "pg_isready")):
            return str(folder)
    raise RuntimeError("no PostgreSQL server here: apt-get install postgresql")


def _unprivileged() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("root may not run PostgreSQL, and there is no user postgres or nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.create_database()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both databases, one after the other."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/fastagi.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database()
