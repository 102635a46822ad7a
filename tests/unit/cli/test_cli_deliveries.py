"""`fastagi deliveries`, `fastagi calls` and `fastagi store`."""

from __future__ import annotations

import pytest

from fastagi.store import Store
from fastagi.store.units import calls
from fastagi.store.units.calls import AnsweredCall


def test_list_and_filters(desk) -> None:
    one, two = desk.recording("one", sinks=("crm", "archive")), desk.recording("two")
    dead = desk.settled(two, ok=False)

    def ids(*arguments: str) -> list[str]:
        return [d["id"] for d in desk("deliveries", "list", "--json", *arguments).json]

    assert len(ids()) == 3
    assert ids("--status", "dead") == [dead]
    assert len(ids("--sink", "crm")) == 2
    assert len(ids("--recording", one.id)) == 2
    assert len(ids("--limit", "2")) == 2
    text = desk("deliveries", "list")
    assert "answered 410: gone" in text.out
    wrong = desk("deliveries", "list", "--status", "lost")
    assert wrong.code == 2
    assert "use one of waiting, running, delivered, dead, parked" in wrong.err


def test_retry(desk) -> None:
    recordings = [desk.recording(name) for name in ("one", "two", "three")]
    dead = [desk.settled(r, ok=False) for r in recordings[:2]]
    done = desk.settled(recordings[2], ok=True)
    (again,) = desk("deliveries", "retry", dead[0], "--json").json
    assert (again["id"], again["status"]) == (dead[0], "waiting")
    refused = desk("deliveries", "retry", done)
    assert refused.code == 1
    assert "only a dead or waiting one" in refused.err
    assert [d["id"] for d in desk("deliveries", "retry", "--dead", "--json").json] == [dead[1]]
    assert desk("deliveries", "retry", "--dead", "--sink", "other").code == 0
    assert desk("deliveries", "list", "--status", "dead", "--json").json == []


@pytest.mark.parametrize("arguments", [(), ("dlv-1", "--dead")])
def test_retry_wants_ids_or_dead(desk, arguments: tuple[str, ...]) -> None:
    desk.recording()
    done = desk("deliveries", "retry", *arguments)
    assert done.code == 2
    assert "give either ids, or --dead" in done.err


@pytest.mark.parametrize(
    ("target", "said"),
    [("sqlite:////tmp/x.db", "--to"), ("nonsense", "--to"), ("postgresql://u:hunter2@127.0.0.1:1/x", "")],
)
def test_move_that_cannot_be(desk, target: str, said: str) -> None:
    desk.recording()
    done = desk("store", "move", "--to", target)
    assert done.code == (2 if said else 1)
    assert said in done.err
    assert "hunter2" not in done.err
    assert done.out == ""


def _calls(desk) -> None:
    """One recorded, one missed, one that is up, one of last month that was missed."""

    async def work(store: Store) -> None:
        for uniqueid, at, ended, verdict in (
            ("1.1", desk.noon, desk.noon + 60, "recorded"),
            ("1.2", desk.noon, desk.noon + 61, "missing"),
            ("1.3", desk.noon, None, ""),
            ("1.4", desk.noon - 30 * 86_400, desk.noon, "short"),
        ):
            await store.run(calls.answered, AnsweredCall("pbx", uniqueid, answered_at=at, required=True, caller="0221"))
            if ended is not None:
                await store.run(calls.ended, "pbx", uniqueid, ended)
                await store.run(calls.judged, "pbx", uniqueid, verdict, reason="because")

    desk.write(work)


def test_calls_check(desk) -> None:
    _calls(desk)
    since = "2026-11-21"
    done = desk("calls", "check", "--since", since, "--json")
    assert done.code == 1
    assert done.json["ok"] is False
    assert done.json["counts"] == {"recorded": 1, "missing": 1}
    assert [c["uniqueid"] for c in done.json["calls"]] == ["1.2"]
    text = desk("calls", "check", "--since", "2026-10-01")
    assert text.code == 1
    assert "1 missing, 1 recorded, 1 short" in text.err
    assert text.out.count("because") == 2
    well = desk("calls", "check", "--since", "2027-01-01")
    assert (well.code, well.out) == (0, "")
    assert "nothing is followed" in well.err


def test_calls_list(desk) -> None:
    _calls(desk)
    assert len(desk("calls", "list", "--json").json) == 4
    assert [c["uniqueid"] for c in desk("calls", "list", "--json", "--limit", "1").json] == ["1.4"]
    assert desk("calls", "list", "--asterisk", "other", "--json").json == []
    assert "up" in desk("calls", "list").out
