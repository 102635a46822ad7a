"""Install the package into a folder, from what the container's build has of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install(folder: Path) -> Path:
    """Build and install into `folder`, without dependencies; return the share folder (``PREFIX/share/fastagi``).

    Only what the Dockerfile copies is there, and the tree itself gets no build folder.
    """
    source, prefix = folder / "source", folder / "prefix"
    source.mkdir()
    for line in re.findall(r"^COPY (?!--)(.+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE):
        *names, target = line.split()
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, source / target)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--ignore-installed", "--prefix", str(prefix), str(source)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return prefix / "share" / "fastagi"
