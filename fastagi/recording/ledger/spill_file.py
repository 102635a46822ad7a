"""A recording's row as a small file: what a restart reads when the ledger never learned of it.

The files of a ledger's servers lie in one folder that is theirs alone, each signed with a key that follows from the
master key. When one is written and when it is read is said in `recording.ledger`. Everything here blocks.

A file is a line (form, id of the key, HMAC-SHA256 of the rest) and JSON. A field that is lacking has its default and
one that is not known is left out, so that files of the version before and of the next one can be read.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import hmac
import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from fastagi.domain.recording import Recording
from fastagi.exposed_files import open_file, open_folder
from fastagi.ownership import inherit_owner
from fastagi.recording.asterisk import raw_files
from fastagi.store.queries import recordings as units

SUFFIX = ".journal"
TEMPORARY_SUFFIX = ".journal-tmp"

FORM = b"fastagi-side-file-2"

LARGEST_BYTES = 1 << 20
"""A row has some kB."""

PURPOSE = "side files"
"""What the signing key is derived from the master key for."""

WrappedKey = tuple[str, bytes]
"""(scheme, key wrapped by the master key)."""


@dataclass(frozen=True, slots=True)
class SpillFile:
    """The content of a side file.

    :param at: when it was written, unix seconds
    :param key: of an encrypted recording whose key the ledger does not have yet
    """

    recording: Recording
    at: float
    key: WrappedKey | None = None


class SpillFolder:
    """The folder of the side files. It is made when it is first needed.

    :param path: on every server of the ledger that sees the same spool, the same folder
    :param key: 32 bytes that all servers of the ledger have
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = path
        self._key = key
        self._key_id = hmac.digest(key, b"id", "sha256").hex()[:16].encode()

    def fault(self) -> str:
        """Return the folder's fault and, after a colon, what to do; empty when side files can be written."""
        if not os.path.lexists(self.path) and os.access(_existing(self.path), os.W_OK | os.X_OK):
            return ""
        try:
            os.close(self._open(make=False))
            if os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
                return ""
            wrong = "may not be read and written"
        except OSError as exc:
            wrong = f"is not usable ({exc.strerror})"
        return f"{self.path} {wrong}: give it to the server's user alone (chown -R {os.geteuid()}, chmod 700)"

    def write(self, side: SpillFile) -> None:
        """Write a file whole or not at all, synced, in place of the recording's older one.

        :raises OSError: no room, no right, or the folder is not the server's own
        """
        name = side.recording.id + SUFFIX
        draft = f"{side.recording.id}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        folder = self._open()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(draft, flags, 0o600, dir_fd=folder), "wb") as file:
                try:
                    inherit_owner(file.fileno(), self.path)
                    file.write(self._signed(side))
                    file.flush()
                    os.fsync(file.fileno())
                    os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(draft, dir_fd=folder)
                    raise
            os.fsync(folder)
        finally:
            os.close(folder)

    def ids(self) -> list[str]:
        """Ids of the recordings that have a side file, oldest first. None where the folder is not usable (`fault`)."""
        try:
            folder = self._open(make=False)
        except OSError:
            return []
        try:
            names = os.listdir(folder)
        except OSError:
            return []
        finally:
            os.close(folder)
        return sorted(n.removesuffix(SUFFIX) for n in names if n.startswith("rec-") and n.endswith(SUFFIX))

    def has(self, recording_id: str) -> bool:
        """Return whether the recording has a side file, of any server; True also where the folder does not tell."""
        try:
            os.lstat(self.path / (recording_id + SUFFIX))
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def read(self, recording_id: str) -> SpillFile:
        """Return what a side file holds.

        :raises ValueError: no server of this ledger has written it
        :raises OSError: it cannot be read; also where another master key is needed, or a newer version
        """
        path = self.path / (recording_id + SUFFIX)
        text = self.read_owned(path)
        head, _, body = text.partition(b"\n")
        form, _, rest = head.partition(b" ")
        key_id, _, signature = rest.partition(b" ")
        if form != FORM:
            if form.startswith(b"fastagi-side-file-") and form[18:].isdigit():
                raise OSError(errno.ENOTSUP, "was written by another version of fastagi: start that", str(path))
            raise ValueError(f"{path}: is no signed side file")
        if key_id != self._key_id:
            hint = "was signed with another master key: put that back, see recordings.key_file"
            raise OSError(errno.EKEYREJECTED, hint, str(path))
        if not hmac.compare_digest(self._signature(body), signature):
            raise ValueError(f"{path}: its signature is wrong")
        return parse(path, body, with_key=True)

    def read_owned(self, path: Path) -> bytes:
        """The content of a regular file of the server's own user: of whoever the folder is, where root reads.

        :raises ValueError: it is another user's, or too large; :raises OSError: it cannot be read
        """
        owners = {os.geteuid()}
        try:
            folder = self._open(make=False)
        except FileNotFoundError:
            pass  # it is made when there is something to write
        else:
            owners.add(os.fstat(folder).st_uid)
            os.close(folder)
        with os.fdopen(open_file(path), "rb") as file:
            if os.fstat(file.fileno()).st_uid not in owners:
                raise ValueError(f"{path}: belongs to another user than the server's")
            text = file.read(LARGEST_BYTES + 1)
        if len(text) > LARGEST_BYTES:
            raise ValueError(f"{path}: is too large")
        return text

    def remove(self, recording_id: str) -> None:
        """Remove a side file; one that is gone is gone. :raises OSError: it cannot be removed"""
        raw_files.remove((str(self.path / (recording_id + SUFFIX)),))

    def set_aside(self, recording_id: str, reason: str) -> Path | None:
        """Keep a file that cannot be used where an operator finds it; where it is now, None where it is gone."""
        moved = raw_files.set_aside((str(self.path / (recording_id + SUFFIX)),), reason)
        return moved[0] if moved else None

    def marked(self, name: str) -> bool:
        """Return whether `mark` was called with that name, by any server of this folder."""
        return os.path.lexists(self.path / f".{name}")

    def mark(self, name: str) -> None:
        """Note for ever that something was done once. :raises OSError: it cannot be noted"""
        folder = self._open()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(f".{name}", flags, 0o600, dir_fd=folder), "wb") as file:
                inherit_owner(file.fileno(), self.path)
            os.fsync(folder)
        finally:
            os.close(folder)

    def _open(self, *, make: bool = True) -> int:
        """The folder, certainly the server's own.

        :param make: make it where it is lacking
        :raises OSError: it cannot be had, or it is another user's
        """
        try:
            folder = open_folder(self.path)
        except FileNotFoundError:
            if not make:
                raise
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
            folder = open_folder(self.path)
            home = os.stat(self.path.parent)
            if os.geteuid() == 0 and home.st_uid != 0:  # made by root for a server that is another user's
                os.fchown(folder, home.st_uid, home.st_gid)
        try:
            found = os.fstat(folder)
            if os.geteuid() not in (0, found.st_uid):
                raise PermissionError(errno.EPERM, "belongs to another user than the server's", str(self.path))
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(folder, 0o700)
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _signed(self, side: SpillFile) -> bytes:
        content: dict[str, object] = {"at": side.at, "recording": units.to_row(side.recording)}
        if side.key is not None:
            content["key"] = [side.key[0], base64.b64encode(side.key[1]).decode()]
        body = json.dumps(content).encode()
        return b" ".join((FORM, self._key_id, self._signature(body))) + b"\n" + body

    def _signature(self, body: bytes) -> bytes:
        return hmac.new(self._key, FORM + b"\n" + body, hashlib.sha256).hexdigest().encode()


def _existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def parse(path: Path, text: bytes, *, with_key: bool) -> SpillFile:
    """Return what the JSON of a side file says.

    :param with_key: take the wrapped key, too
    :raises ValueError: it is no row, or the row of another file name
    """
    try:
        content = json.loads(text)
        key = content.get("key") if with_key else None
        side = SpillFile(
            units.from_copy(content["recording"]),
            float(content["at"]),
            (str(key[0]), base64.b64decode(key[1], validate=True)) if key else None,
        )
    except Exception as exc:
        raise ValueError(f"{path}: no side file: {type(exc).__name__}: {exc}") from None
    if path.name != side.recording.id + SUFFIX:
        raise ValueError(f"{path}: is of {side.recording.id}")
    return side
