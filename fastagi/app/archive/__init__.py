"""What operators do with recordings that have ended: find, prove, export, decrypt, hold, delete.

Beside a running server, or without one: over a `fastagi.store.visit.Visit`, so nothing here takes the ledger's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastagi.exports import exports

__all__ = ["Exported", "Selection", "by_name", "decrypt", "delete", "export", "hold", "prove", "release", "select"]

if TYPE_CHECKING:
    from fastagi.app.archive.decrypting import decrypt
    from fastagi.app.archive.exporting import Exported, export
    from fastagi.app.archive.finding import Selection, by_name, select
    from fastagi.app.archive.keeping import delete, hold, release
    from fastagi.app.archive.proving import prove
else:
    __getattr__, __dir__ = exports(
        __name__,
        __all__,
        {
            "fastagi.app.archive.decrypting": ["decrypt"],
            "fastagi.app.archive.exporting": ["Exported", "export"],
            "fastagi.app.archive.finding": ["Selection", "by_name", "select"],
            "fastagi.app.archive.keeping": ["delete", "hold", "release"],
            "fastagi.app.archive.proving": ["prove"],
        },
    )
