"""Messages between instances under virtual time: order, spawns, ends of children, loops."""

import json
from typing import Any

import pytest

from instances.engine import steps
from instances.engine.messages import child_event
from instances.engine.operations import Kind
from tests.instances.engine.simulated import Cluster, Site


@pytest.fixture
def site() -> Site:
    return Site()


def heard(site: Site, slug: str) -> list[Any]:
    """(sender, event) of what an instance was told."""
    return [tuple(pair) for pair in json.loads(site.row(slug)["context"]).get("heard", [])]


def mark(n: int, **more: Any) -> dict[str, Any]:
    return {"type": "inc", "n": n, **more}


def test_message_is_a_transition_of_the_other_instance(site):
    site.created("a")
    site.created("b")

    answer = site.send("tell", "a", to="b", event=mark(1))
    site.world.run()

    assert answer.n == 1  # the sender does not wait for what it caused
    assert heard(site, "b") == [("a", mark(1))]
    assert [t["kind"] for t in site.history("b")] == [Kind.INIT, Kind.MESSAGE]
    assert site.store.deliveries == {}


def test_messages_of_one_sender_arrive_in_the_order_in_which_they_were_sent(site):
    site.created("a")
    site.created("b")

    for n in range(500):
        site.send("tell", "a", to="b", event=mark(n))
    site.world.run()

    assert [event["n"] for _, event in heard(site, "b")] == list(range(500))


def test_messages_of_one_step_keep_their_order(site):
    site.created("a")
    site.created("b")

    site.send("tell", "a", to="b", event=mark(1), times=3)
    site.world.run()

    assert len(heard(site, "b")) == 3


def test_delayed_message_comes_at_its_time_and_can_be_cancelled(site):
    site.created("a")
    site.created("b")
    start_ms = site.world.now_ms()

    site.send("tell", "a", to="b", event=mark(1), delay=5_000)
    site.send("tell", "a", to="b", event=mark(2), delay=9_000, id="t")
    site.world.run(1_000)
    site.send("cancel", "a")
    site.world.run()

    assert heard(site, "b") == [("a", mark(1))]
    assert 5_000 <= site.history("b")[-1]["ts"] - start_ms < 5_100


def test_message_to_nobody_is_tried_five_times_and_kept(site):
    site.created("a")

    answer = site.send("tell", "a", to="nobody", event=mark(1))
    site.world.run(100_000)
    assert site.store.dead_letters == []
    site.world.run()

    assert answer.n == 1
    [letter] = site.store.dead_letters
    assert "there is no instance nobody" in letter["reason"]
    assert letter["attempts"] == 5


def test_message_to_an_instance_that_comes_later_arrives_then(site):
    site.created("a")
    site.send("tell", "a", to="late", event=mark(1))
    site.world.run(10_000)

    site.created("late")
    site.world.run(60_000)

    assert heard(site, "late") == [("a", mark(1))]


def test_unknown_machine_is_a_dead_letter_with_its_reason(site):
    site.created("a")

    site.send("tell", "a", to="b", machine="unheard-of", event=mark(1))
    site.world.run()

    assert "machine" in site.store.dead_letters[0]["reason"]
    assert len(site.history("a")) == 2


@pytest.mark.parametrize("refusal", ["throw", "deny", "kill"])
def test_refused_message_lets_the_others_pass(site, refusal):
    site.created("a")
    site.created("b")

    for event in (mark(1), {"type": refusal}, mark(2), mark(3)):
        site.send("tell", "a", to="b", event=event)
    site.world.run(20_000)

    assert [event["n"] for _, event in heard(site, "b")] == [1, 2, 3]
    site.world.run()
    assert len(site.store.dead_letters) == 1


def test_trouble_of_the_store_keeps_the_order_and_counts_no_attempt(site):
    site.created("a")
    site.created("b")
    for n in range(50):
        site.send("tell", "a", to="b", event=mark(n))
    site.world.run(20)
    for n in range(20):
        site.world.call_in(n * 200, setattr, site.store, "failing", n % 2 == 0)

    site.world.run()

    sent = sum(t["kind"] == Kind.CLIENT for t in site.history("a"))
    assert 0 < sent <= 50
    numbers = [event["n"] for _, event in heard(site, "b")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == sent
    assert site.store.dead_letters == []


def test_paused_target_gets_its_messages_in_order_when_it_resumes(site):
    site.created("a")
    site.created("b")
    site.store.set_status(site.row("b")["id"], 1, lambda found: None)
    site.world.run(100)
    for n in range(20):
        site.send("tell", "a", to="b", event=mark(n))
    site.world.run(600_000)
    assert heard(site, "b") == []

    site.store.set_status(site.row("b")["id"], 0, lambda found: None)
    site.world.run(10_000)

    assert [event["n"] for _, event in heard(site, "b")] == list(range(20))
    assert site.store.dead_letters == []


def test_message_does_not_overtake_held_ones_while_its_target_resumes(site, monkeypatch):
    site.created("a")
    site.created("b")
    site.store.set_status(site.row("b")["id"], 1, lambda found: None)
    site.world.run(100)
    site.send("tell", "a", to="b", event=mark(1))
    site.world.run(10_000)
    find_due = site.store.find_due

    def find_and_resume(key: Any, now_ms: int, limit: int, done: Any) -> None:
        def found(rows: Any) -> None:
            if site.row("b")["status"] == 1:
                site.store.set_status(site.row("b")["id"], 0, lambda found: done(rows))
            else:
                done(rows)

        find_due(key, now_ms, limit, found)

    monkeypatch.setattr(site.store, "find_due", find_and_resume)
    site.send("tell", "a", to="b", event=mark(2))
    site.world.run(10_000)

    assert [event["n"] for _, event in heard(site, "b")] == [1, 2]


def test_ping_pong_goes_on_at_full_speed_and_is_slowed_when_it_never_ends(site, monkeypatch):
    monkeypatch.setattr(steps, "LOOP_HOPS", 200)
    site.created("a")
    site.created("b")

    site.send("tell", "a", to="b", event={"type": "pong", "from": "a", "to": "b", "left": 100_000})
    site.world.run(3_000)
    fast = site.n("a") + site.n("b")
    site.world.run(10_000)
    slow = site.n("a") + site.n("b") - fast

    assert fast > 200
    assert 300 < slow <= 1_000  # a hundred a second


def test_spawned_instance_knows_its_parent_and_gets_what_was_sent_to_it(site):
    site.created("a")

    site.send("spawn", "a", **{"as": "child"}, context={"colour": "red"})
    site.world.run()

    context = json.loads(site.row("child")["context"])
    assert context["colour"] == "red"
    assert context["public"]["n"] == 1  # the message behind the spawn
    assert site.row("child")["parent_id"] == site.row("a")["id"]
    assert site.row("child")["parent_child"] == "kid"
    assert site.store.deliveries == {}


def test_spawn_on_a_name_that_is_taken_fails_and_the_parent_hears_of_it(site):
    site.created("a")
    site.created("taken")

    site.send("spawn", "a", **{"as": "taken"})
    site.world.run()

    [letter] = site.store.dead_letters
    assert "exists already" in letter["reason"]
    [(_, event)] = heard(site, "a")
    assert event["type"] == "xstate.error.actor.kid"
    assert event["error"]["name"] == "ChildNotCreated"


def test_spawn_that_is_refused_by_the_machine_fails(site):
    site.created("a")

    site.send("spawn", "a", **{"as": "child"}, context={"start": "deny"})
    site.world.run()

    assert (1, "child") not in site.store.rows
    assert len(site.store.dead_letters) == 2  # the spawn, and the message to what never came


def test_parent_hears_of_the_end_of_its_child(site):
    site.created("a")
    site.send("spawn", "a", **{"as": "child"})
    site.world.run(5_000)

    site.send("finish", "child")
    site.world.run(5_000)

    [(sender, event)] = heard(site, "a")
    assert sender == "child"
    assert event == {"type": "xstate.done.actor.kid", "output": {"n": 2}, "actorId": "kid"}


def test_end_of_a_child_reaches_nobody_when_the_parent_is_gone(site):
    site.created("a")
    site.send("spawn", "a", **{"as": "child"})
    site.world.run(5_000)
    site.store.delete(site.row("a")["id"], lambda found: None)
    site.world.run(5_000)

    answer = site.send("finish", "child")
    site.world.run()

    assert answer.n == 2
    assert site.store.deliveries == {}


def test_a_crash_loses_no_message_and_doubles_none(site):
    site.created("a")
    site.created("b")
    for n in range(40):
        site.send("tell", "a", to="b", event=mark(n))
    site.world.run(12)
    site.store.on_commit = lambda outcomes: None  # the process ends
    site.timers.stop()
    site.engine.suspend()
    for runner in list(site.engine.links):
        runner.kill("killed")
    site.world.run(50)

    site.start()
    site.world.run(30_000)

    sent = sum(t["kind"] == Kind.CLIENT for t in site.history("a"))
    assert [event["n"] for _, event in heard(site, "b")] == list(range(sent))


@pytest.mark.parametrize("seed", range(20))
def test_order_holds_while_the_sender_moves_between_nodes(seed):
    cluster = Cluster(seed)
    first, second = cluster.nodes
    first.created("a")
    first.created("b")
    count = 0
    for _ in range(10):
        for node in (first, second):
            for _ in range(3):
                node.send("tell", "a", to="b", event=mark(count))
                count += 1
            cluster.world.run(cluster.world.random.uniform(20, 400))

    cluster.world.run(60_000)

    told = [json.loads(t["event"])["event"]["n"] for t in first.history("a")[1:]]
    assert sorted(told) == list(range(count))
    assert [event["n"] for _, event in heard(first, "b")] == told


@pytest.mark.parametrize("seed", range(10))
def test_messages_reach_an_instance_whose_services_run_on_another_node(seed):
    cluster = Cluster(seed)
    first, second = cluster.nodes
    first.created("a")
    first.created("b")
    second.send("hang-service", "b")
    cluster.world.run(500)

    for n in range(10):
        first.send("tell", "a", to="b", event=mark(n))
    cluster.world.run(60_000)

    assert [event["n"] for _, event in heard(first, "b")] == list(range(10))
    assert first.row("b")["owner"] == "node-1"


class Behind:
    """The clock of a node that is behind the others by a while."""

    def __init__(self, world: Any, ms: int) -> None:
        self.monotonic, self.call_at = world.monotonic, world.call_at
        self.now_ms = lambda: world.now_ms() - ms


def test_owner_whose_clock_is_behind_finds_what_it_is_told_of():
    cluster = Cluster(1)
    first, second = cluster.nodes
    first.created("a")
    first.created("b")
    second.send("hang-service", "b")
    cluster.world.run(500)
    second.engine.clock = Behind(cluster.world, 40)

    first.send("tell", "a", to="b", event=mark(1))
    cluster.world.run(1_000)

    assert heard(first, "b") == [("a", mark(1))]


def test_node_that_was_told_by_mistake_tells_the_owner():
    cluster = Cluster(1, count=3)
    first, _, third = cluster.nodes
    first.created("a")
    first.created("b")
    third.send("hang-service", "b")
    cluster.world.run(500)
    first.engine.elsewhere.homes[1, "b"] = "node-1", cluster.world.now_ms() + 5_000

    first.send("tell", "a", to="b", event=mark(1))
    cluster.world.run(2_000)

    assert heard(first, "b") == [("a", mark(1))]


@pytest.mark.parametrize(
    ("major", "told", "expected"),
    [
        (4, {"type": "statebacked.child-done", "id": "c"}, {"type": "done.invoke.c", "data": None}),
        (
            4,
            {"type": "statebacked.child-error", "id": "c", "error": {"name": "E"}},
            {"type": "error.platform.c", "data": {"name": "E"}},
        ),
        (
            5,
            {"type": "statebacked.child-error", "id": "c", "error": {"name": "E"}},
            {"type": "xstate.error.actor.c", "error": {"name": "E"}, "actorId": "c"},
        ),
    ],
)
def test_end_of_a_child_is_told_in_the_words_of_the_parents_xstate(major, told, expected):
    assert json.loads(child_event(major, json.dumps(told))) == expected
