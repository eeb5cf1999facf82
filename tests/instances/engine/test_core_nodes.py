"""The protocol between two nodes that share a database, under virtual time."""

import json
from typing import Any

import pytest

from instances.engine.errors import InstancePaused, RejectedByAuthorizer, Unavailable
from instances.engine.operations import Kind
from tests.instances.engine.simulated import Cluster

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_contended_instance_counts_what_was_acknowledged(seed):
    cluster = Cluster(seed)
    cluster.nodes[0].created("a")

    answers = []
    for _ in range(40):
        answers += [node.send("inc") for node in cluster.nodes]
        cluster.world.run(cluster.world.random.uniform(0, 4))
    cluster.world.run(60_000)

    assert all(answer.count == 1 for answer in answers)
    refused = [answer for answer in answers if answer.error is not None]
    assert all(isinstance(answer.error, Unavailable) for answer in refused)
    assert cluster.nodes[0].n() == len(answers) - len(refused)
    assert [t["seq"] for t in cluster.nodes[0].history()] == list(
        range(1, cluster.nodes[0].n() + 2)
    )
    assert len(refused) <= len(answers) * 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_one_of_two_contending_nodes_gives_way(seed):
    cluster = Cluster(seed)
    cluster.nodes[0].created("a")
    for _ in range(200):
        for node in cluster.nodes:
            node.send("inc")
        cluster.world.run(2)
    conflicts = sum(node.engine.conflicts for node in cluster.nodes)

    for _ in range(200):
        for node in cluster.nodes:
            node.send("inc")
        cluster.world.run(2)

    # The node that gave way tries again every few seconds, and gives way again; and where many
    # events come to that one the instance may move.
    assert sum(node.engine.conflicts for node in cluster.nodes) - conflicts <= 80  # of 400


@pytest.mark.parametrize("seed", range(10))
def test_events_spread_over_nodes_conflict_until_one_of_two_has_each_instance(seed):
    cluster = Cluster(seed)
    first, second = cluster.nodes
    slugs = [f"i-{n}" for n in range(20)]
    for slug in slugs:
        first.created(slug)
    answers: list[Any] = []

    def conflicts_of_rounds(count):
        before = first.engine.conflicts + second.engine.conflicts
        for _ in range(count):
            answers.extend(node.send("inc", slug) for slug in slugs for node in cluster.nodes)
            cluster.world.run(20)
        return first.engine.conflicts + second.engine.conflicts - before

    assert conflicts_of_rounds(10) <= 6 * 20  # of 400: while they find out
    assert conflicts_of_rounds(10) <= 10
    cluster.world.run(1_000)

    assert [answer.count for answer in answers] == [1] * 800
    assert all(answer.error is None for answer in answers)


def test_event_that_met_a_commit_of_another_node_is_processed_where_it_came():
    cluster = Cluster()
    first, second = cluster.nodes
    first.created("a")
    second.send("inc")
    cluster.world.run(100)  # both have it in a runner now
    first.send("inc")
    cluster.world.run(100)
    sent_on = []
    second.engine.elsewhere.forward = lambda operation, address: sent_on.append(operation)

    answer = second.send("inc")
    cluster.world.run(100)

    assert second.engine.conflicts
    assert answer.n == 3
    assert not sent_on


def test_instance_moves_to_the_node_that_all_of_its_events_come_to():
    cluster = Cluster()
    first, second = cluster.nodes
    first.created("a")
    for _ in range(30):
        second.send("inc")
        cluster.world.run(20)
    cluster.world.run(1_000)

    assert first.n() == 30
    assert (1, "a") in second.engine.activations
    assert first.row()["owner"] == "node-1"


def test_answer_from_a_cached_state_is_never_older_than_what_was_acknowledged_elsewhere():
    cluster = Cluster()
    first, second = cluster.nodes
    first.created("a")
    second.send("inc")
    cluster.world.run(1_000)  # both have it in a runner now

    first.send("inc")
    cluster.world.run(1_000)
    nothing_to_do, denied = second.send("noop"), second.send("deny")
    cluster.world.run(1_000)

    assert nothing_to_do.n == 2
    assert isinstance(denied.error, RejectedByAuthorizer)


def test_event_for_an_unsettled_instance_goes_to_the_node_of_its_services():
    cluster = Cluster()
    first, second = cluster.nodes
    first.created("a")
    first.send("hang-service")
    cluster.world.run(1_000)

    counted = second.send("inc")
    cluster.world.run(1_000)

    assert cluster.nodes[0].n() == 2
    assert (1, "a") not in second.engine.activations
    cluster.world.run(100_000)
    assert counted.n == 2  # at the settle limit
    assert Kind.LOST_SERVICE not in [t["kind"] for t in first.history()]


def test_services_of_a_dead_node_are_lost_when_its_lease_has_ended():
    cluster = Cluster()
    first, second = cluster.nodes
    first.created("a")
    first.send("hang-service")
    cluster.world.run(1_000)
    cluster.kill(0)

    # Forwarded to a node that is not there: it is not known whether it was applied, or refused.
    cluster.living.discard("node-0")
    counted = second.send("inc")
    cluster.world.run(2_000)

    assert counted.n == 2
    kinds = [t["kind"] for t in first.history()]
    assert kinds[-2:] == [Kind.LOST_SERVICE, Kind.CLIENT]


def test_owner_that_is_stuck_past_its_deadline_is_taken_over():
    cluster = Cluster()
    first, second = cluster.nodes
    first.created("a")
    first.send("hang-service")
    cluster.world.run(1_000)
    cluster.kill(0)
    cluster.world.call_in(0, cluster.living.add, "node-0")  # and yet its lease is renewed

    cluster.world.run(101_000)
    counted = second.send("inc")
    cluster.living.add("node-0")
    cluster.world.run(2_000)

    assert counted.n == 2


def test_nothing_is_begun_while_the_lease_may_have_ended():
    cluster = Cluster()
    first = cluster.nodes[0]
    first.created("a")
    first.engine.suspend()

    refused = [first.send("inc"), first.create("b")]
    cluster.world.run(1_000)

    assert all(isinstance(answer.error, Unavailable) for answer in refused)
    first.engine.resume()
    served = first.send("inc")
    cluster.world.run(1_000)
    assert served.n == 1


def test_services_are_not_started_by_a_commit_that_comes_when_the_lease_may_have_ended():
    cluster = Cluster()
    first, second = cluster.nodes
    first.created("a")
    first.send("call")
    first.engine.suspend()
    cluster.world.run(5_000)

    assert json.loads(first.row()["children"])  # committed, and never begun
    answer = second.send("inc")
    cluster.world.run(5_000)
    assert answer.n == 2
    assert Kind.LOST_SERVICE in [t["kind"] for t in first.history()]


def test_event_that_came_after_a_resume_is_not_refused_by_what_was_read_before(monkeypatch):
    cluster = Cluster()
    first, second = cluster.nodes
    first.created("a")
    first.row("a")["status"] = 1
    read = second.store.read

    def read_slowly(key: Any, done: Any) -> None:
        read(key, lambda row: done_later(done, row))

    def done_later(done: Any, row: Any) -> None:
        cluster.world.call_in(50, done, row)

    monkeypatch.setattr(second.store, "read", read_slowly)

    early = second.send("inc")
    cluster.world.run(20)
    first.row("a")["status"] = 0
    late = [second.send("inc"), second.send("inc")]
    cluster.world.run(1_000)

    assert isinstance(early.error, InstancePaused)
    assert [answer.n for answer in late] == [1, 2]
