"""Upgrades under virtual time: when they happen, what they change, what goes wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from instances.engine.errors import MigrationFailed
from instances.engine.forwarding import _error
from instances.engine.operations import SETTLED, Kind
from tests.instances.engine.simulated import Answer, Cluster, Kills, Site, Throws


@pytest.fixture
def site() -> Site:
    """An instance of version 1, and a migration to version 2."""
    site = Site()
    site.add_migration(1, 2)
    site.created()
    return site


def kinds(site: Site) -> list[tuple[int, int]]:
    return [(t["kind"], t["version_id"]) for t in site.history()]


def context(site: Site) -> Any:
    return json.loads(site.row()["context"])


def with_effects(*effects: dict[str, Any]) -> Callable[..., Any]:
    return lambda path, context: (context, list(effects))


# ---------------------------------------------------------------------- when


def test_next_event_is_processed_on_the_desired_version(site):
    site.desire(2)

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.n == 1
    assert kinds(site) == [(Kind.INIT, 1), (Kind.UPGRADE, 2), (Kind.CLIENT, 2)]
    assert site.history()[1]["event"] == (
        '{"type":"statebacked.upgrade","from":"ver_1","to":"ver_2"}'
    )
    assert (site.row()["version_id"], site.row()["desired_version_id"]) == (2, None)
    assert context(site)["upgrades"] == [1]


def test_nothing_happens_until_an_event_comes(site):
    site.desire(2)

    site.world.run(100_000)

    assert kinds(site) == [(Kind.INIT, 1)]


def test_shortest_way_is_taken_migration_by_migration(site):
    for from_version, to_version in ((2, 3), (1, 4), (4, 5), (5, 3), (2, 3)):
        site.add_migration(from_version, to_version)
    site.desire(3)

    site.send("inc")
    site.world.run(1_000)

    assert context(site)["upgrades"] == [1, 6]  # of two between the same versions the newer one
    assert '"from":"ver_1","to":"ver_3"' in site.history()[1]["event"]


def test_events_that_wait_for_an_upgrade_keep_their_order_and_share_it(site):
    site.desire(2)

    answers = [site.send("inc") for _ in range(50)]
    site.world.run(1_000)

    assert [a.n for a in answers] == list(range(1, 51))
    assert [t["kind"] for t in site.history()].count(Kind.UPGRADE) == 1
    assert len(site.engine.runners.asked) == 2


def test_event_of_a_hot_instance_that_heard_nothing_finds_out_by_its_commit(site):
    site.send("inc")
    site.world.run(1_000)
    site.desire(2, tells=False)

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.n == 2
    assert kinds(site)[-2:] == [(Kind.UPGRADE, 2), (Kind.CLIENT, 2)]


def test_instance_whose_services_run_settles_on_its_old_version(site):
    hanging, called = site.send("hang-service"), site.send("call")
    site.world.run(100)
    site.desire(2)
    late = site.send("inc")
    site.world.run(200)
    assert set(kinds(site)[1:]) == {(Kind.CLIENT, 1), (Kind.SERVICE, 1)}

    site.world.run(100_000)  # the hanging service ends with the settle limit
    site.send("inc")
    site.world.run(1_000)

    assert all(answer.body for answer in (hanging, called, late))
    assert kinds(site)[-3:] == [(Kind.LOST_SERVICE, 1), (Kind.UPGRADE, 2), (Kind.CLIENT, 2)]


def test_instance_that_settles_after_its_version_was_desired_is_upgraded_before_the_next(site):
    called = site.send("call")
    site.world.run(5)
    site.desire(2)
    site.world.run(1_000)
    assert called.body is not None
    assert site.row()["children"] == SETTLED

    answer = site.send("noop")
    site.world.run(1_000)

    assert answer.n == 2
    assert kinds(site)[-2:] == [(Kind.SERVICE, 1), (Kind.UPGRADE, 2)]


@pytest.mark.parametrize("quarter_ms", range(40))
def test_service_that_is_about_to_start_runs_to_its_end(site, quarter_ms):
    """Whenever the word comes that the row may want another version, though it wants none."""
    called = site.send("call")
    queued = site.send("inc")
    site.world.run(quarter_ms / 4)
    site.desire(None)
    late = site.send("inc")
    site.world.run(10_000)

    assert Kind.LOST_SERVICE not in [t["kind"] for t in site.history()]
    assert (called.n, queued.n, late.n) == (4, 4, 4)  # all were told the state that it settled in


def test_what_an_instance_sends_to_itself_is_not_stopped_by_a_desired_version(site):
    site.send("to-self")
    site.world.run(2)
    while len(site.history()) < 3:
        site.world.run(0.5)
    site.desire(2, tells=False)
    site.world.run(100)

    of_itself = [t for t in site.history() if t["kind"] == Kind.SERVICE]
    assert len(of_itself) > 5
    assert {t["version_id"] for t in of_itself} == {1}


def test_instance_that_is_done_stays_as_it_is(site):
    site.send("finish")
    site.world.run(1_000)
    site.desire(2)

    answer = site.send("noop")
    site.world.run(1_000)

    assert answer.body["done"]
    assert kinds(site) == [(Kind.INIT, 1), (Kind.CLIENT, 1)]


def test_done_instance_answers_also_where_others_write():
    cluster = Cluster()
    site = cluster.nodes[0]
    site.add_migration(1, 2)
    site.created()
    site.send("finish")
    cluster.world.run(1_000)
    site.desire(2, tells=False)

    answers = [node.send("noop") for node in cluster.nodes]
    cluster.world.run(10_000)

    assert [a.body["done"] for a in answers] == [True, True]
    assert len(site.history()) == 2


def test_taking_back_the_desired_version_leaves_the_instance_alone(site):
    site.desire(2)
    site.desire(None)

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.n == 1
    assert kinds(site) == [(Kind.INIT, 1), (Kind.CLIENT, 1)]


def test_upgraded_instance_is_hot_on_its_new_version(site):
    site.desire(2)
    site.send("inc")
    site.world.run(1_000)
    runners = set(site.engine.runners.current)

    site.send("call")
    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.n >= 3
    assert runners == {1, 2}
    assert len(site.engine.activations) == 1
    assert {t["version_id"] for t in site.history()[1:]} == {2}


def test_subscribers_hear_of_the_upgrade(site):
    heard: list[tuple[int, int]] = []
    site.engine.on_committed = lambda o: heard.append((o.kind, o.activation.version_id))
    site.desire(2)

    site.send("noop")
    site.world.run(1_000)

    assert heard == [(Kind.UPGRADE, 2)]


def test_children_and_parents_know_each_other_after_an_upgrade(site):
    site.send("spawn", **{"as": "kid"})
    site.world.run(1_000)
    site.desire(2, "kid")

    site.send("finish", "kid")
    site.world.run(1_000)

    ends = [t for t in site.history() if t["kind"] == Kind.MESSAGE and "done.actor" in t["event"]]
    assert len(ends) == 1
    assert site.row("kid")["version_id"] == 2


# ---------------------------------------------------------------------- failures


def test_migration_that_throws_fails_the_event_and_changes_nothing(site):
    before = dict(site.row())

    def fail(*_: Any) -> Any:
        raise Throws("no such state")

    site.runners.migrate = fail
    site.desire(2)
    before["desired_version_id"] = 2

    answer = site.send("inc")
    site.world.run(1_000)

    assert (answer.error.status, answer.error.code) == (500, "migration-failed")
    assert str(answer.error) == "Error: no such state"
    assert site.row() == before
    assert "upgrade failed" in site.engine.journal.lines[-1].message
    assert not site.engine.activations
    assert not site.runners.current[2].live
    assert not site.runners.current[1].live


def test_event_goes_through_once_the_migration_works(site):
    works = site.runners.migrate

    def fail(*_: Any) -> Any:
        raise Throws("not yet")

    site.runners.migrate = fail
    site.desire(2)
    first = site.send("inc")
    site.world.run(1_000)
    site.runners.migrate = works
    site.add_migration(1, 2)

    second = site.send("inc")
    site.world.run(1_000)

    assert first.error is not None
    assert second.n == 1


def test_without_a_way_the_event_fails(site):
    site.desire(7)

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.error.code == "migration-failed"
    assert "no migrations lead from ver_1" in str(answer.error)
    assert kinds(site) == [(Kind.INIT, 1)]


def test_context_that_grows_too_large_fails_the_event(site):
    site.runners.migrate = lambda path, context: ({**context, "big": "x" * 400_000}, [])
    site.desire(2)

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.error.code == "migration-failed"
    assert kinds(site) == [(Kind.INIT, 1)]


def test_failed_migration_is_a_failed_attempt_of_a_timer(site):
    site.send("after", ms=1_000)
    site.world.run(100)

    def fail(*_: Any) -> Any:
        raise Throws("never")

    site.runners.migrate = fail
    site.desire(2)
    site.world.run(200_000)

    [dead] = site.store.dead_letters
    assert dead["reason"] == "migration-failed: Error: never"
    assert not site.store.deliveries
    assert site.timers.in_flight == 0


def test_event_that_came_after_the_row_was_read_is_tried_on_a_row_of_its_own(site):
    tried = 0

    def fail_once(path: list[int], context: dict[str, Any]) -> Any:
        nonlocal tried
        tried += 1
        if tried == 1:
            late.append(site.send("inc"))
            raise Throws("not yet")
        return context, []

    late: list[Answer] = []
    site.runners.migrate = fail_once
    site.desire(2)

    early = site.send("inc")
    site.world.run(1_000)

    assert early.error is not None
    assert late[0].n == 1


def test_request_that_was_applied_before_is_told_so_though_the_migration_fails(site):
    first = site.send("inc", key="k")
    site.world.run(1_000)

    def fail(*_: Any) -> Any:
        raise Throws("no")

    site.runners.migrate = fail
    site.desire(2)

    again, other = site.send("inc", key="k"), site.send("inc", key="l")
    site.world.run(1_000)

    assert again.body == first.body
    assert other.error.code == "migration-failed"


@pytest.mark.parametrize("deaths", [1, 2])
def test_upgrade_that_kills_its_runner_gets_two_tries(site, deaths):
    left = deaths

    def kill(path: list[int], context: dict[str, Any]) -> Any:
        nonlocal left
        # Something else is in flight: nobody can tell which of them it was.
        if left == deaths:
            site.send("inc", "b")
        left -= 1
        if left >= 0:
            site.runners.current[2].kill("killed")
            raise Kills
        return context, []

    site.engine.create((1, "b"), 2, "{}", '{"sub":"u"}', Answer(site.world))
    site.world.run(1_000)
    site.runners.migrate = kill
    site.desire(2)
    answer = site.send("inc")
    site.world.run(5_000)

    if deaths == 1:
        assert answer.n == 1
        assert site.row()["version_id"] == 2
    else:
        assert answer.error.code == "machine-limit"
        assert kinds(site) == [(Kind.INIT, 1)]
    assert not site.engine.upgrades._suspects
    assert not site.engine.loading.waiting


def test_runner_that_dies_over_the_description_is_replaced(site):
    deaths = iter([True, False])
    site.runners.kills_describer = lambda: next(deaths)
    site.desire(2)

    answer = site.send("inc")
    site.world.run(5_000)

    assert answer.n == 1
    assert kinds(site)[1] == (Kind.UPGRADE, 2)


def test_version_that_never_describes_its_state_is_over_its_limit(site):
    site.runners.kills_describer = lambda: True
    site.desire(2)

    answer = site.send("inc")
    site.world.run(5_000)

    assert answer.error.code == "machine-limit"
    assert not site.engine.loading.waiting


def test_answer_that_is_no_step_costs_the_runner_its_life_and_the_event_an_error(site):
    site.runners.migrate = lambda path, context: (context, [{"t": "explode"}])
    site.desire(2)

    answer = site.send("inc")
    site.world.run(10_000)

    assert answer.error.code == "machine-limit"
    assert not site.engine.loading.waiting
    assert kinds(site) == [(Kind.INIT, 1)]


def test_error_of_a_migration_comes_whole_from_another_node():
    told = b'{"type":"MigrationFailed","message":"no","stack":"at x"}'

    error = _error(told)

    assert isinstance(error, MigrationFailed)
    assert (error.code, str(error), error.stack) == ("migration-failed", "no", "at x")


# ---------------------------------------------------------------------- what comes in between


def in_migration(site: Site, happen: Callable[[], Any]) -> None:
    """Have something happen while the first upgrade is being computed."""
    migrate = site.runners.migrate
    happened: list[bool] = []

    def first(path: list[int], context: dict[str, Any]) -> Any:
        if not happened:
            happened.append(True)
            happen()
        return migrate(path, context)

    site.runners.migrate = first


def test_paused_meanwhile(site):
    row_id, told = site.row()["id"], Answer(site.world)
    in_migration(site, lambda: site.row().update(status=1))
    site.desire(2)

    answer = site.send("inc")
    site.world.run(1_000)
    assert answer.error.code == "invalid-state"
    assert kinds(site) == [(Kind.INIT, 1)]

    site.engine.set_status((1, "a"), row_id, 0, told)
    site.world.run(1_000)
    again = site.send("inc")
    site.world.run(1_000)

    assert again.n == 1
    assert site.row()["version_id"] == 2
    assert [note.event for notes in site.engine.journal._notes.values() for note in notes]


def test_deleted_meanwhile(site):
    row_id, told = site.row()["id"], Answer(site.world)
    in_migration(site, lambda: site.engine.delete((1, "a"), row_id, told))
    site.desire(2)

    answer = site.send("inc")
    site.world.run(1_000)

    assert told.body is True
    assert answer.error.status == 404
    assert not site.engine.activations
    assert not site.engine.loading.waiting


def test_deleted_and_created_anew_meanwhile(site):
    def replace() -> None:
        del site.store.rows[1, "a"]
        site.create(colour="red")

    in_migration(site, replace)
    site.desire(2)
    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.n == 1
    assert context(site)["colour"] == "red"
    assert kinds(site) == [(Kind.INIT, 1), (Kind.CLIENT, 1)]


def test_other_version_desired_meanwhile(site):
    site.add_migration(2, 3)
    in_migration(site, lambda: site.desire(3))
    site.desire(2)

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.n == 1
    assert kinds(site) == [(Kind.INIT, 1), (Kind.UPGRADE, 3), (Kind.CLIENT, 3)]


def test_desired_version_taken_back_meanwhile(site):
    in_migration(site, lambda: site.desire(None))
    site.desire(2)

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.n == 1
    assert kinds(site) == [(Kind.INIT, 1), (Kind.CLIENT, 1)]


def test_version_desired_while_the_row_is_mounted(site):
    site.engine.end((1, "a"), is_deleted=False)
    site.runners.current[1].kill("killed")
    site.world.run(100)

    answer = site.send("noop")
    site.world.run(4)  # read, and a runner is being started
    site.desire(2)
    site.world.run(1_000)

    assert answer.n == 0
    assert kinds(site)[-1] == (Kind.UPGRADE, 2)


def test_fenced_meanwhile(site):
    in_migration(site, site.engine.end_all)
    site.desire(2)

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.error.status == 503
    assert not site.engine.loading.waiting
    site.engine.resume()
    again = site.send("inc")
    site.world.run(1_000)
    assert again.n == 1
    assert site.row()["version_id"] == 2


def test_drained_meanwhile(site):
    in_migration(site, site.engine.drain)
    site.desire(2)

    answer = site.send("inc")
    site.world.run(1)
    assert site.engine.busy()
    site.world.run(1_000)

    assert answer.n == 1
    assert not site.engine.busy()


def test_database_that_refuses_the_upgrade_leaves_the_event_for_later(site):
    in_migration(site, lambda: setattr(site.store, "failing", True))
    site.desire(2)

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.error.status == 503
    assert kinds(site) == [(Kind.INIT, 1)]
    assert not site.engine.loading.waiting


def test_upgrade_of_which_nobody_knows_the_end_costs_no_event(site):
    in_migration(site, lambda: setattr(site.store, "ambiguous", True))
    put = site.store.put

    def only_once(operations: list[Any]) -> None:
        site.store.ambiguous = any(o.kind is Kind.UPGRADE for o in operations)
        put(operations)

    site.store.put = only_once
    site.desire(2)
    answers = [site.send("inc"), site.send("inc")]
    site.world.run(1_000)

    assert [a.n for a in answers] == [1, 2]
    assert [t["kind"] for t in site.history()].count(Kind.UPGRADE) == 1
    assert context(site)["upgrades"] == [1]


def test_runner_that_dies_once_the_upgrade_is_with_the_database(site):
    put = site.store.put

    def die(operations: list[Any]) -> None:
        put(operations)
        if operations[0].kind is Kind.UPGRADE:
            site.runners.current[2].kill("killed")

    site.store.put = die
    site.desire(2)

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.n == 1
    assert kinds(site) == [(Kind.INIT, 1), (Kind.UPGRADE, 2), (Kind.CLIENT, 2)]


# ---------------------------------------------------------------------- several nodes


@pytest.mark.parametrize("seed", range(20))
def test_two_nodes_upgrade_at_once_and_one_does_it(seed):
    cluster = Cluster(seed)
    site = cluster.nodes[0]
    site.add_migration(1, 2)
    site.created()
    cluster.nodes[1].send("inc")
    cluster.world.run(10_000)
    site.desire(2, tells=seed % 2 == 0)

    answers = [node.send("inc") for node in cluster.nodes for _ in range(3)]
    cluster.world.run(10_000)

    assert sorted(a.n for a in answers) == [2, 3, 4, 5, 6, 7]
    assert [t["kind"] for t in site.history()].count(Kind.UPGRADE) == 1
    assert {t["version_id"] for t in site.history()[3:]} == {2}
    assert site.row()["desired_version_id"] is None


@pytest.mark.parametrize("seed", range(10))
def test_refusal_is_not_told_by_a_version_that_is_no_longer_desired(seed):
    cluster = Cluster(seed)
    site = cluster.nodes[0]
    site.add_migration(1, 2)
    site.created()
    cluster.world.run(10_000)
    site.desire(2, tells=False)

    answer = site.send("deny")
    cluster.world.run(1_000)

    assert answer.error.status == 403
    assert kinds(site)[-1] == (Kind.UPGRADE, 2)


def test_owner_of_running_services_upgrades_once_they_have_ended():
    cluster = Cluster()
    owner, other = cluster.nodes
    owner.add_migration(1, 2)
    owner.created()
    owner.send("call")
    cluster.world.run(8)
    owner.desire(2, tells=False)

    answers = [other.send("inc") for _ in range(3)]
    cluster.world.run(1_000)
    last = other.send("inc")
    cluster.world.run(1_000)

    assert all(a.body for a in answers)
    assert last.n == 6
    assert [t["kind"] for t in owner.history()].count(Kind.UPGRADE) == 1
    versions = [t["version_id"] for t in owner.history()]
    assert versions == sorted(versions)


# ---------------------------------------------------------------------- timers


def rename(to: str, type_: str, id_: str = "t") -> dict[str, Any]:
    return {"t": "rename", "id": id_, "to": to, "event": {"type": type_}}


@pytest.mark.parametrize("ms", [300, 2_000, 60_000])
def test_kept_timer_fires_at_its_time_as_what_the_new_version_calls_it(site, ms):
    started_ms = site.world.time_ms
    site.send("after", ms=ms)
    site.world.run(100)
    site.runners.migrate = with_effects(rename("t2", "act"))
    site.desire(2)

    site.send("noop")
    site.world.run(ms + 2_000)

    fired = site.history()[-1]
    assert (fired["kind"], fired["version_id"]) == (Kind.TIMER, 2)
    assert json.loads(fired["event"]) == {"type": "act"}
    assert ms <= fired["ts"] - started_ms < ms + 30
    assert not site.store.deliveries


def test_renamed_timer_is_cancelled_by_its_new_name(site):
    site.send("after", ms=5_000)
    site.world.run(100)
    site.runners.migrate = with_effects(rename("t", "act"), {"t": "cancel", "id": "nothing"})
    site.desire(2)

    site.send("cancel")
    site.world.run(10_000)

    assert not site.store.deliveries
    assert site.history()[-1]["kind"] == Kind.CLIENT


def test_timers_of_states_that_are_no_more_are_cancelled(site):
    site.send("after", ms=2_000)
    site.world.run(100)
    site.runners.migrate = with_effects({"t": "cancel", "id": "t"})
    site.desire(2)

    site.send("noop")
    site.world.run(10_000)

    assert kinds(site)[-1] == (Kind.UPGRADE, 2)
    assert not site.store.deliveries


def test_new_timers_start_with_the_upgrade(site):
    timer = {"t": "timer", "id": "new", "delay": 500, "event": {"type": "inc"}}
    site.runners.migrate = with_effects({"t": "cancel", "id": "new"}, timer)
    site.desire(2)

    site.send("noop")
    site.world.run(2_000)

    upgrade, fired = site.history()[-2:]
    assert fired["kind"] == Kind.TIMER
    assert 490 <= fired["ts"] - upgrade["ts"] < 530


@pytest.mark.parametrize("seed", range(10))
def test_timer_that_brings_about_the_upgrade_fires_as_what_it_is_called_then(seed):
    site = Site(seed)
    site.add_migration(1, 2)
    site.created()
    site.send("after", ms=3_000)
    site.world.run(100)
    site.runners.migrate = with_effects(rename("t2", "act"))
    site.desire(2, tells=seed % 2 == 0)

    site.world.run(3_500)

    assert kinds(site)[-2:] == [(Kind.UPGRADE, 2), (Kind.TIMER, 2)]
    assert json.loads(site.history()[-1]["event"]) == {"type": "act"}
    assert site.timers.in_flight == 0
    assert not site.store.deliveries


def test_timer_that_brings_about_the_upgrade_and_is_cancelled_by_it(site):
    site.send("after", ms=3_000)
    site.world.run(100)
    site.runners.migrate = with_effects({"t": "cancel", "id": "t"})
    site.desire(2)

    site.world.run(10_000)

    assert kinds(site)[-1] == (Kind.UPGRADE, 2)
    assert site.timers.in_flight == 0
    assert not site.timers.known()


def test_timers_that_swap_their_names_keep_their_times(site):
    site.runners.migrate = with_effects(rename("u", "act"), rename("t", "inc", "u"))
    site.send("after", ms=1_000)
    site.world.run(50)
    row_id = site.row()["id"]
    timers = site.store.deliveries
    timers[999] = {**next(iter(timers.values())), "send_id": "u", "event": '{"type":"inc"}'}
    timers[999].update(due_at_ms=timers[999]["due_at_ms"] + 1_000, n=1, claimed=False)
    site.desire(2)

    site.send("noop")
    site.world.run(50)

    left = sorted((d["due_at_ms"], d["send_id"]) for d in timers.values() if d["source"] == row_id)
    assert [send_id for _, send_id in left] == ["u", "t"]
    site.world.run(5_000)
    assert [json.loads(t["event"])["type"] for t in site.history()[-2:]] == ["act", "inc"]


def test_timer_of_an_attempt_before_keeps_its_attempts(site):
    site.send("after", then="throw", ms=500)
    site.world.run(2_000)
    site.runners.migrate = with_effects(rename("t2", "throw"))
    site.desire(2)

    site.send("noop")
    site.world.run(200_000)

    [dead] = site.store.dead_letters
    assert dead["attempts"] == 5
    assert dead["send_id"] == "t2"
