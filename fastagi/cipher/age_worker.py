"""Worker process of `fastagi.cipher.age`: encrypts standard input with age to standard output.

Arguments are recipients (public keys). Imports nothing of fastagi: a process starts per file and must start fast.
"""

from __future__ import annotations

import errno
import os
import sys


def main(recipients: list[str]) -> int:
    """Encrypt standard input to standard output.

    :returns: exit code: 0, 1 with a line on standard error, or ENOSPC when there is no room
    """
    import pyrage

    keys = [
        pyrage.ssh.Recipient.from_str(r) if r.startswith("ssh-") else pyrage.x25519.Recipient.from_str(r)
        for r in recipients
    ]
    try:
        with os.fdopen(0, "rb", closefd=False) as source, os.fdopen(1, "wb", closefd=False) as target:
            pyrage.encrypt_io(source, target, keys)
            target.flush()
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return errno.ENOSPC
        print(exc.strerror, file=sys.stderr)
        return 1
    except pyrage.EncryptError as exc:
        if os.strerror(errno.ENOSPC) in str(exc):
            return errno.ENOSPC
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
