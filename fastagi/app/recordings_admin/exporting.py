"""Copies recordings into a folder that can be verified on its own: files, metadata, SHA256SUMS.

The folder can be handed over: `sha256sum -c SHA256SUMS` needs no fastagi. A file that is not what was recorded is not
exported.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from fastagi.app.recordings_admin.decrypting import ledger_cipher
from fastagi.cipher import Cipher
from fastagi.delivery.keys import check_template, key_of
from fastagi.domain.recording import Recording
from fastagi.errors import Error
from fastagi.recording.compliance.evidence import Proof, check_file
from fastagi.settings import Settings
from fastagi.store.offline import OfflineLedger

SUMS = "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class Exported:
    """The result for one recording.

    :param file: the copy, empty when there is none
    :param fault: why there is none
    """

    recording: Recording
    file: str = ""
    sha256: str = ""
    fault: str = ""


async def export(
    settings: Settings,
    ledger: OfflineLedger,
    recordings: AsyncIterable[Recording],
    folder: Path,
    *,
    template: str,
    clear: bool = False,
) -> AsyncIterator[Exported]:
    """Export one recording after the other. An unchanged copy in the folder is kept, so a broken export can go on.

    :param template: name below the folder, with the fields of an object store's key
    :param clear: decrypt encrypted recordings, with the ledger's keys
    :raises BadArgument: the template cannot be used
    :raises OSError: the folder cannot be written
    """
    check_template(template)
    known = await asyncio.to_thread(_begin, folder)
    async for recording in recordings:
        try:
            cipher = await ledger_cipher(settings, ledger, recording) if clear and recording.spec.encryption else None
            file, digest = await asyncio.to_thread(_copy, recording, folder, template, cipher, known)
        except Error as exc:
            yield Exported(recording, fault=str(exc))
            continue
        yield Exported(recording, str(file), digest)


def _begin(folder: Path) -> set[str]:
    """Make the folder and return the lines that its SHA256SUMS has already."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = folder / SUMS
    return set(sums.read_text(encoding="utf-8").splitlines()) if sums.exists() else set()


def _copy(
    recording: Recording, folder: Path, template: str, cipher: Cipher | None, known: set[str]
) -> tuple[Path, str]:
    found = check_file(recording)
    if found.proof is not Proof.OK:
        raise Error(found.detail or found.proof.value)
    metadata = recording.metadata()
    name = key_of(template, metadata)
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise Error(f"{target}: a link leads out of the folder")
    draft = target.with_name(f".{target.name}.fastagi-tmp")
    try:
        if cipher is not None:
            cipher.decrypt_file(recording.file_path, draft)
        else:
            shutil.copyfile(recording.file_path, draft)
        digest = _digest(draft)
        if target.exists() and _digest(target) != digest:
            raise Error(f"{target}: is there already, and is another file")
        _sync(draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    target.with_name(target.name + ".json").write_text(
        json.dumps(metadata.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    line = f"{digest}  {name}"
    if line not in known:
        with (folder / SUMS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        known.add(line)
    return target, digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
