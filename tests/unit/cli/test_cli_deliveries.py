"""`fastagi deliveries`, `fastagi calls` and `fastagi store`."""

from __future__ import annotations

import pytest

from fastagi.domain.delivery import SinkRefusals
from fastagi.store import Store
from fastagi.store.queries import calls, deliveries, holds
from fastagi.store.queries.calls import AnsweredCall


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


def test_a_held_sink_is_told(desk) -> None:
    """Its deliveries wait though they were never tried: the list says why."""
    desk.recording("one")

    async def hold(store: Store) -> None:
        await store.run(holds.write, "crm", SinkRefusals(("a", "b", "c"), 1_700_000_000.0, "answered 401"))

    desk.write(hold)
    shown = desk("deliveries", "list")
    assert "sink crm: its sink is held since 2023-11-14" in " ".join(shown.err.split())
    assert "answered 401" in shown.out
    [found] = desk("deliveries", "list", "--json").json
    assert found["hint"].startswith("its sink is held since")


def test_retry(desk) -> None:
    recordings = [desk.recording(name) for name in ("one", "two", "three")]
    dead = [desk.settled(r, ok=False) for r in recordings[:2]]
    done = desk.settled(recordings[2], ok=True)
    (again,) = desk("deliveries", "retry", dead[0], "--json").json
    assert (again["id"], again["status"]) == (dead[0], "waiting")
    refused = desk("deliveries", "retry", done)
    assert refused.code == 1
    assert "only a dead, parked or waiting one" in refused.err
    assert [d["id"] for d in desk("deliveries", "retry", "--dead", "--json").json] == [dead[1]]
    assert desk("deliveries", "retry", "--dead", "--sink", "other").code == 0
    assert desk("deliveries", "list", "--status", "dead", "--json").json == []


def _parked(desk, *names: str) -> list[str]:
    """Their sink, crm, is gone: ids."""
    made = [desk.recording(name) for name in names]

    async def work(store: Store) -> list[str]:
        await store.run(deliveries.park, ["crm"])
        return [(await store.read(deliveries.of_recording, r.id))[0].id for r in made]

    return desk.write(work)


def _add_sink(desk, name: str) -> None:
    with desk.config.open("a") as file:
        file.write(f'[[sinks]]\nname = "{name}"\ntype = "local"\n')


def test_parked_delivery_shows_its_fault(desk) -> None:
    """A parked delivery says what is wrong until its sink is back."""
    (parked,) = _parked(desk, "one")
    refused = desk("deliveries", "retry", parked)
    assert (refused.code, refused.out) == (1, "")
    (line,) = refused.err.splitlines()
    for told in (parked, "is parked", "no server that runs has a sink 'crm'", "put it back", "(there are: none)"):
        assert told in line
    assert "no server that runs has a sink 'crm'" in desk("deliveries", "list").out
    assert desk("deliveries", "list", "--json").json[0]["hint"].startswith("no server that runs")
    _add_sink(desk, "crm")
    (again,) = desk("deliveries", "retry", "--parked", "--json").json
    assert (again["id"], again["sink"], again["status"]) == (parked, "crm", "waiting")
    assert "no parked deliveries" in desk("deliveries", "retry", "--parked").err


def test_parked_deliveries_move_to_another_sink(desk) -> None:
    """A delivery that cannot be moved holds up no other."""
    parked = _parked(desk, "one", "two")
    twice = desk.recording("three", sinks=("old", "new"))

    async def park(store: Store) -> None:
        await store.run(deliveries.park, ["old"])

    desk.write(park)
    wrong = desk("deliveries", "retry", "--parked", "--to", "new")
    assert (wrong.code, wrong.err.count("has a sink 'new' (there are: none)")) == (1, 3)
    _add_sink(desk, "new")
    done = desk("deliveries", "retry", "--parked", "--to", "new", "--json")
    assert done.code == 1, "one of the recordings has a delivery to that sink"
    assert sorted((d["id"], d["sink"]) for d in done.json) == sorted((each, "new") for each in parked)
    (line,) = done.err.splitlines()
    assert "its recording has a delivery to new" in line
    assert [d["recording_id"] for d in desk("deliveries", "list", "--status", "parked", "--json").json] == [twice.id]


def test_retry_by_id_ignores_sink_filter(desk) -> None:
    """A retry by id takes no `--sink`: it would filter nothing."""
    desk.recording()
    done = desk("deliveries", "retry", "dlv-1", "--sink", "crm")
    assert done.code == 2
    assert "--to is another sink" in done.err


@pytest.mark.parametrize("arguments", [(), ("dlv-1", "--dead"), ("--dead", "--parked")])
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
