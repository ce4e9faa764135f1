"""Which job runs where: nothing beside a measurement, no node over what it has, each job ended once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.fleet.job import FleetJob, Needs
from tlkit.fleet.schedule import MOST_DEATHS, FleetNode, Schedule

ANY = Needs()


def job(at: int, needs: Needs = ANY) -> FleetJob:
    return FleetJob(f"j{at}", "inspect", (), needs=needs)


def node(name: str, slots: int = 2, memory: int = 0, *units: str) -> FleetNode:
    return FleetNode(name, slots, memory, frozenset({"cpu", *units}))


def test_jobs_in_order_and_no_more_than_slots() -> None:
    schedule = Schedule(map(job, range(5)), [node("a")])
    assert [item.key for item, _ in schedule.next()] == ["j0", "j1"]
    assert list(schedule.next()) == []
    schedule.finished(job(0), "a")
    assert [item.key for item, _ in schedule.next()] == ["j2"]
    assert (schedule.left, schedule.running()) == (4, 2)


def test_a_node_that_runs_models_alike() -> None:
    here, engines = node("here"), frozenset({"eager", "openvino"})
    assert FleetNode("a", 1, 0, here.units, engines).like(here, "openvino")
    assert not FleetNode("b", 1, 0, here.units, frozenset({"eager"})).like(here, "openvino")
    assert not FleetNode("c", 1, 0, frozenset({"cpu", "gpu"}), engines).like(here, "openvino")


def test_a_measurement_waits_until_nothing_else_runs_or_could() -> None:
    alone = Needs(alone=True)
    schedule = Schedule([job(0, alone), job(1), job(2), job(3, alone)], [node("a")])
    assert [item.key for item, _ in schedule.next()] == ["j1", "j2"]
    schedule.finished(job(1), "a")
    assert list(schedule.next()) == []  # j2 runs
    schedule.finished(job(2), "a")
    assert [item.key for item, _ in schedule.next()] == ["j0"]
    assert list(schedule.next()) == []
    schedule.finished(job(0, alone), "a")
    assert [item.key for item, _ in schedule.next()] == ["j3"]


def test_a_unit_and_memory_are_where_they_are() -> None:
    wanted = [job(0, Needs("ane")), job(1, Needs(memory=8)), job(2, Needs("gpu"))]
    schedule = Schedule(wanted, [node("small", 2, 4, "ane"), node("large", 2, 10)])
    assert schedule.give_up() == [wanted[2]]
    assert {(item.key, where.name) for item, where in schedule.next()} == {("j0", "small"), ("j1", "large")}
    assert schedule.left == 2


def test_a_job_that_kills_is_set_aside() -> None:
    schedule = Schedule([job(0)], [node("a")])
    for death in range(MOST_DEATHS):
        assert [item.key for item, _ in schedule.next()] == ["j0"]
        assert schedule.lost(job(0), "a", blamed=True) is (death < MOST_DEATHS - 1)
    assert schedule.left == 0 and list(schedule.next()) == []


def test_a_nodes_jobs_go_to_others_when_it_dies() -> None:
    schedule = Schedule(map(job, range(3)), [node("a"), node("b", 1)])
    assert len(list(schedule.next())) == 3
    there = {item.key for item in schedule.remove("a")}
    assert len(there) == 2 and schedule.remove("a") == []
    assert schedule.lost(job(int(min(there)[1:])), "a", blamed=False)  # its end is heard of late
    schedule.finished(next(job(at) for at in range(3) if f"j{at}" not in there), "b")
    again = []
    while schedule.left:
        for item, where in schedule.next():
            again.append(item.key)
            schedule.finished(item, where.name)
    assert sorted(again) == sorted(there)


def test_an_outcome_from_a_lost_node_counts() -> None:
    schedule = Schedule([job(0), job(1)], [node("a", 1), node("b", 1)])
    running = {where.name: item for item, where in schedule.next()}
    schedule.remove("a")
    schedule.finished(running["a"], "a")
    schedule.finished(running["b"], "b")
    assert schedule.left == 0 and list(schedule.next()) == []


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_happens_each_job_ends_once(seed: int) -> None:
    rng = random.Random(seed)
    kinds = [Needs(rng.choice(["", "ane"]), rng.choice([0, 3, 6]), rng.random() < 0.3) for _ in range(5)]
    jobs = [job(at, rng.choice(kinds)) for at in range(rng.randrange(1, 40))]
    nodes = [node(f"n{at}", rng.randrange(1, 4), rng.choice([0, 8]), "ane") for at in range(3)]
    schedule, running, ended = Schedule(jobs, nodes), {}, []
    for _ in range(2000):
        for item, where in schedule.next():
            assert item.key not in running and item.key not in ended
            running[item.key] = (item, where.name)
        for where in schedule.nodes.values():
            here = [item for item, name in running.values() if name == where.name]
            assert len(here) <= where.slots and (len(here) == 1 or not any(item.needs.alone for item in here))
            assert not where.memory or sum(item.needs.memory for item in here) <= where.memory
        if not schedule.left:
            break
        if len(schedule.nodes) > 1 and rng.random() < 0.02:
            name = rng.choice(list(schedule.nodes))
            assert {item.key for item in schedule.remove(name)} == {k for k, (_, n) in running.items() if n == name}
            running = {key: found for key, found in running.items() if found[1] != name}
            continue
        key = rng.choice(sorted(running))
        item, name = running.pop(key)
        if rng.random() < 0.2:
            if not schedule.lost(item, name, blamed=rng.random() < 0.5):
                ended.append(key)
        else:
            schedule.finished(item, name)
            ended.append(key)
    assert sorted(ended) == sorted(item.key for item in jobs)


def test_a_hundred_thousand_jobs_cost_little_each() -> None:
    """No time is asserted: with a queue that is searched, this would not end."""
    schedule = Schedule(
        (job(at, Needs(memory=at % 3)) for at in range(100_000)), [node(f"n{at}", 8, 64) for at in range(5)]
    )
    ended = 0
    while schedule.left:
        for item, where in list(schedule.next()):
            schedule.finished(item, where.name)
            ended += 1
    assert ended == 100_000


@pytest.mark.parametrize("needs", [Needs(memory=65), Needs("gpu")])
def test_what_no_node_can_take_is_found_before_anything_starts(needs: Needs) -> None:
    schedule = Schedule([job(0), job(1, needs), job(2, needs)], [node("a", 2, 64)])
    assert [item.key for item in schedule.give_up()] == ["j1", "j2"]
    assert schedule.left == 1
