"""Keys of encrypted recordings: wrapped by the master key and kept in the ledger, so that a restart can finish the
file.

A key is never stored in clear, never logged, never in metadata. Deleting a recording deletes its key.
"""

from __future__ import annotations

from fastagi.cipher import Cipher, MasterKey, from_secret
from fastagi.store import Store
from fastagi.store.queries import keys as units


class KeyStore:
    """Wraps and unwraps.

    :param master: wraps every key; bound to the recording's id, so that rows cannot be swapped
    """

    def __init__(self, store: Store, master: MasterKey) -> None:
        self._store = store
        self._master = master

    def wrap(self, recording_id: str, cipher: Cipher) -> tuple[str, bytes]:
        """(scheme, wrapped key): what may be written down; `Journal.enter` does."""
        return cipher.scheme, self._master.wrap(cipher.to_secret(), recording_id.encode())

    async def load(self, recording_id: str) -> Cipher | None:
        """The cipher of a recording; None when there is none, or it was deleted.

        :raises CipherError: the master key is another one than that which wrapped it
        """
        row = await self._store.read(units.get, recording_id)
        if row is None:
            return None
        wrapped: bytes = row[1]
        return from_secret(self._master.unwrap(wrapped, recording_id.encode()))
