"""ActiveRecordings of one call: an old recording that is finished again does not hide the one that runs."""

from __future__ import annotations

from fastagi.domain.recording import Segment
from fastagi.domain.states import Phase
from fastagi.recording.ledger.active import ActiveRecording, ActiveRecordings
from support.delivery_harness import recording


def job_of(n: int, phase: Phase) -> ActiveRecording:
    return ActiveRecording(recording(n, uniqueid="1.1", phase=phase, pieces=(Segment(f"/s/{n}.wav", uniqueid="1.1"),)))


def test_a_recording_that_is_finished_again_does_not_hide_the_running_one() -> None:
    jobs = ActiveRecordings()
    running = job_of(2, Phase.ACTIVE)
    again = job_of(1, Phase.FINISHING)
    for pair in ((running, again), (again, running)):
        for job in pair:
            jobs.add(job)
        assert jobs.current(running.key) is running
        jobs.close(again)
        assert jobs.current(running.key) is running
        jobs.close(running)
        assert jobs.current(running.key) is None


def test_a_superseded_recording_leaves_its_call_to_another() -> None:
    jobs = ActiveRecordings()
    old, new = (job_of(n, Phase.ACTIVE) for n in (1, 2))
    jobs.add(old)
    jobs.supersede(old)
    assert jobs.current(old.key) is None
    assert jobs.on_channel("pbx", "1.1") == []
    jobs.add(new)
    jobs.close(old)
    assert jobs.current(new.key) is new
    assert jobs.on_channel("pbx", "1.1") == [new]
