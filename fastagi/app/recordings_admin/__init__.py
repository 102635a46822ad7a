"""Operators' work on recordings that have ended: find, prove, export, decrypt, hold, delete.

Uses a `fastagi.store.offline.OfflineLedger`, beside a running server or without one. Nothing here takes the ledger's
lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastagi.exports import exports

__all__ = ["Exported", "Selection", "by_name", "decrypt", "delete", "export", "hold", "prove", "release", "select"]

if TYPE_CHECKING:
    from fastagi.app.recordings_admin.decrypting import decrypt
    from fastagi.app.recordings_admin.exporting import Exported, export
    from fastagi.app.recordings_admin.finding import Selection, by_name, select
    from fastagi.app.recordings_admin.keeping import delete, hold, release
    from fastagi.app.recordings_admin.proving import prove
else:
    __getattr__, __dir__ = exports(
        __name__,
        __all__,
        {
            "fastagi.app.recordings_admin.decrypting": ["decrypt"],
            "fastagi.app.recordings_admin.exporting": ["Exported", "export"],
            "fastagi.app.recordings_admin.finding": ["Selection", "by_name", "select"],
            "fastagi.app.recordings_admin.keeping": ["delete", "hold", "release"],
            "fastagi.app.recordings_admin.proving": ["prove"],
        },
    )
