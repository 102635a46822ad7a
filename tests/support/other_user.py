"""``python other_user.py UID GID[,GID...] ARGS``: `fastagi ARGS` as a user to whom the interpreter may be closed.

Everything is imported before the user changes: afterwards it may not be readable.
"""

from __future__ import annotations

import encodings.idna
import importlib
import os
import pkgutil
import sys
from ctypes import util
from importlib import resources

import uvloop

import fastagi


def main() -> None:
    assert encodings.idna
    assert util
    assert uvloop
    assert (resources.files("fastagi.web") / "static" / "index.html").read_bytes()
    for module in pkgutil.walk_packages(fastagi.__path__, "fastagi."):
        if not module.name.startswith(("fastagi.testing", "fastagi.store.migrations", "fastagi.__main__")):
            importlib.import_module(module.name)
    user, groups = int(sys.argv[1]), [int(group) for group in sys.argv[2].split(",")]
    os.setgroups(groups)
    os.setgid(groups[0])
    os.setuid(user)
    os.umask(0o027)
    sys.argv[1:3] = []
    from fastagi.cli import main as run

    run()


if __name__ == "__main__":
    main()
