"""A sox that reads Opus: SoX_ng, which Debian has beside Asterisk 22. The sox of Debian 12 knows no Opus."""

from __future__ import annotations

from functools import cache

from fastagi.testing.packages import debian_tree, tree_command


@cache
def sox_ng() -> tuple[str, ...]:
    """argv that runs it; fetched into the cache where it is not there yet (20 MB).

    :raises AsteriskError: it cannot be fetched
    """
    tree = debian_tree("sox-ng", "sox", "forky", ("sox",))
    command = tree_command(tree, "usr/bin/sox_ng", "pulseaudio", "blas", "lapack")
    assert command is not None, f"{tree} holds no sox_ng: delete it, it is fetched again"
    return command
