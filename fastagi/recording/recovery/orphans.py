"""Files that no row knows become recordings: entered into the ledger, ended as unseen, finished and delivered."""

from __future__ import annotations

import structlog

from fastagi.domain.facts import ORPHAN, RENAMED, Facts
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.recording.asterisk import raw_files
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.stopping import Stopper

log = structlog.get_logger(__name__)


class Orphans:
    """Makes recordings of files.

    :param directory: of the finished files
    :param sinks: of a recording that nobody asked for
    """

    def __init__(self, context: RecordingContext, stopper: Stopper) -> None:
        self._journal = context.journal
        self._jobs = context.jobs
        self._stopper = stopper
        self._threads = context.threads
        self._node = context.node
        self._directory = context.settings.directory
        self._sinks = context.default_sinks

    async def adopt(
        self,
        pbx: Pbx,
        recording_id: str,
        pieces: tuple[Segment, ...],
        spec: RecordingSpec,
        *,
        name: str,
        relative: str,
        requested_at: float,
        detail: dict[str, object],
    ) -> None:
        """Returns once it is finished, or has failed.

        :param relative: where the finished file is to be, below the recordings directory
        :param requested_at: when it began, unix seconds, as far as the files tell
        :param detail: for the journal: where they were found
        :raises HeldElsewhere: another server of a shared spool was faster; no name is left taken
        """
        path, renamed = await self._threads.run(raw_files.reserve, self._directory, relative, recording_id)
        recording = Recording(
            id=recording_id,
            node=self._node,
            asterisk=pbx.name,
            system=pbx.system,
            channel="",
            uniqueid=recording_id,
            name=name,
            file_path=path,
            spec=spec,
            pieces=pieces,
            sinks=self._sinks(),
            adopted=True,
            requested_at=requested_at,
            facts=Facts({ORPHAN: True, **({RENAMED: True} if renamed else {})}),
        )
        try:
            await self._journal.enter(recording, detail)
        except BaseException:
            await self._threads.run(raw_files.release, path)
            raise
        job = ActiveRecording(recording)
        self._jobs.add(job)
        log.warning("orphan_adopted", **recording.ids, **detail)
        await self._stopper.on_missed_end(job)
        await job.wait(None)
