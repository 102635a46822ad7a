"""Source of an Asterisk: the one on PATH, or Debian's packages unpacked once into a read-only cache.

No package is installed, no maintainer script runs, and root is not needed. `fastagi.testing.asterisk` starts the
program.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastagi.errors import AsteriskError

SUITES = {16: "bullseye", 22: "forky"}
"""Debian release by Asterisk version. bookworm (Debian 12) has no Asterisk."""

PACKAGES = ("asterisk", "asterisk-core-sounds-en-gsm", "asterisk-moh-opsound-gsm")

SYSTEM_PATH = "/usr/sbin:/usr/local/sbin"
"""Folders of Asterisk that a user's PATH may lack."""

FETCH_SECONDS = 900.0
"""Longest download in seconds: 60 MB take 10 to 30 s on a good line."""

_UNWANTED = ("dev", "proc", "sys", "tmp", "run", "var", "usr/share/doc", "usr/share/man", "usr/share/locale")
"""Folders not kept: Asterisk reads none of them, and device nodes are no files (`dev/zero` has no end)."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Installed Asterisk.

    :param command: argv that runs it, options follow
    :param version: version as Asterisk tells it, such as ``22.10.1``
    :param modules: folder that holds `app_mixmonitor.so`
    :param data: folder that holds `sounds`, `moh` and `documentation`
    """

    command: tuple[str, ...]
    version: str
    modules: Path
    data: Path

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


def cache_folder() -> Path:
    """Return ``$FASTAGI_CACHE``, or ``~/.cache/fastagi``."""
    named = os.environ.get("FASTAGI_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "fastagi"


def find_asterisk(major: int) -> Installation:
    """Return an Asterisk of a major version: the machine's own where it fits, else the cached or a fetched one.

    Blocks, the first time for a download of 60 MB. Several processes may call this at once: one of them fetches.

    :param major: 22, 16, or the version of the machine's own
    :raises AsteriskError: there is none and it cannot be fetched; the text names the package to install
    """
    own = _on_path(major)
    if own is not None:
        return own
    if major not in SUITES:
        known = ", ".join(str(v) for v in sorted(SUITES))
        raise AsteriskError(f"Asterisk {major} is neither on PATH nor known as a Debian package: use one of {known}")
    return _unpacked(debian_tree(f"asterisk-{major}", "Asterisk", SUITES[major], PACKAGES, _unpacked))


def debian_tree(
    folder: str, what: str, suite: str, packages: Sequence[str], whole: Callable[[Path], object] = lambda tree: None
) -> Path:
    """Return the folder of Debian packages with their dependencies, unpacked in the cache and fetched if needed.

    :param folder: name in the cache; :param what: name of the program for errors
    :param whole: raises AsteriskError where a file is missing
    :raises AsteriskError: the packages cannot be fetched
    """
    tree = cache_folder() / folder
    if not tree.is_dir():
        with _locked(tree):
            if not tree.is_dir():
                _fetch(tree, what, suite, packages, whole)
    return tree


def tree_command(tree: Path, program: str, *more_libraries: str) -> tuple[str, ...] | None:
    """Return argv that runs a program of an unpacked tree by the tree's own loader and libraries.

    :param program: path in the tree; :param more_libraries: folders below the one of all libraries
    :return: None where the tree has no such program, or no loader
    """
    loader = _first(
        [tree],
        [
            "usr/lib64/ld-linux-*.so.2",
            "lib/*-linux-gnu*/ld-[0-9]*.so",
            "usr/lib/ld-linux-*.so.1",
            "lib/ld-linux-*.so.1",
        ],
    )
    if loader is None or not (tree / program).exists():
        return None
    libraries = [*tree.glob("lib/*-linux-gnu*"), *tree.glob("usr/lib/*-linux-gnu*"), tree / "usr" / "lib"]
    libraries += [below / name for below in libraries for name in more_libraries]
    return (str(loader), "--library-path", ":".join(map(str, libraries)), str(tree / program))


def own_major() -> int | None:
    """Return the major version of the machine's own Asterisk; None where none can be started."""
    program = _program()
    version = _version((program,)) if program is not None else None
    major = int(version.split(".")[0]) if version is not None else 0
    return major if major and _on_path(major) is not None else None


def _program() -> str | None:
    return shutil.which("asterisk") or shutil.which("asterisk", path=SYSTEM_PATH)


def _on_path(major: int) -> Installation | None:
    program = _program()
    if program is None:
        return None
    version = _version((program,))
    if version is None or int(version.split(".")[0]) != major:
        return None
    modules = _first(
        [Path(p) for p in ("/usr/lib", "/usr/lib64", "/usr/local/lib")],
        ["*-linux-gnu*/asterisk/modules/app_mixmonitor.so", "asterisk/modules/app_mixmonitor.so"],
    )
    data = _first([Path("/usr/share/asterisk"), Path("/var/lib/asterisk")], ["sounds/en*"])
    if modules is None or data is None:
        return None
    return Installation((program,), version, modules.parent, data.parent.parent)


def _unpacked(tree: Path) -> Installation:
    """Return the Asterisk in an unpacked tree."""
    modules = _first(
        [tree / "usr" / "lib"],
        ["*-linux-gnu*/asterisk/modules/app_mixmonitor.so", "asterisk/modules/app_mixmonitor.so"],
    )
    command = tree_command(tree, "usr/sbin/asterisk")
    if command is None or modules is None:
        raise AsteriskError(f"{tree} holds no whole Asterisk: delete it, it is fetched again")
    version = _version(command)
    if version is None:
        raise AsteriskError(f"{tree} holds an Asterisk that does not run on this machine")
    return Installation(command, version, modules.parent, tree / "usr" / "share" / "asterisk")


def _first(folders: list[Path], patterns: list[str]) -> Path | None:
    return next((hit for folder in folders for pattern in patterns for hit in sorted(folder.glob(pattern))), None)


def _version(command: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run([*command, "-V"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"Asterisk (\d+(?:\.\d+)*)", done.stdout)
    return found.group(1) if found else None


@contextlib.contextmanager
def _locked(tree: Path) -> Iterator[None]:
    """Hold the lock of the process that fetches; the kernel frees it if the process dies."""
    tree.parent.mkdir(parents=True, exist_ok=True)
    with open(tree.parent / f"{tree.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(tree: Path, what: str, suite: str, packages: Sequence[str], whole: Callable[[Path], object]) -> None:
    """Download and unpack into a temporary folder, then rename: an existing tree is complete."""
    if shutil.which("mmdebstrap") is None:
        raise AsteriskError(
            f"mmdebstrap is needed to fetch {what}: apt-get install mmdebstrap (or put {what.lower()} on PATH)"
        )
    half = Path(tempfile.mkdtemp(prefix=f".{tree.name}-", dir=tree.parent))
    try:
        half.chmod(0o755)
        _run_mmdebstrap(half, what, suite, packages)
        for name in _UNWANTED:
            shutil.rmtree(half / name, ignore_errors=True)
        whole(half)
        half.rename(tree)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _run_mmdebstrap(folder: Path, what: str, suite: str, packages: Sequence[str]) -> None:
    """Run mmdebstrap. Variant extract runs no maintainer script; `chrootless` needs neither root nor namespaces."""
    mirror = os.environ.get("FASTAGI_DEBIAN_MIRROR")
    command = [
        "mmdebstrap",
        "--mode=chrootless",
        "--variant=extract",
        "--format=directory",
        # a suite's Release file may be past its date
        '--aptopt=Acquire::Check-Valid-Until "false"',
        f"--include={','.join(packages)}",
        suite,
        str(folder),
        *([mirror] if mirror else []),
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise AsteriskError(f"{what} could not be fetched from Debian {suite} in {FETCH_SECONDS:.0f} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        faults = [line for line in lines if line.startswith(("E:", "Err:", "W: Failed"))] or lines[-1:]
        raise AsteriskError(f"{what} could not be fetched from Debian {suite}: {'; '.join(faults[:3])}")
