"""The engine's protocol under virtual time: every promise, without a process or a database."""

import json

import pytest

from instances.engine.journal import NOTED_CHARS, NOTES_OF_INSTANCE, Unheeded
from instances.engine.operations import Kind
from tests.instances.engine.simulated import Answer, Site


@pytest.fixture
def site() -> Site:
    return Site()


def test_created_instance_has_its_first_transition(site):
    answer = site.create(colour="red")

    site.world.run()

    assert answer.body["state"] == "counting"
    assert [t["kind"] for t in site.history()] == [Kind.INIT]
    assert json.loads(site.row()["context"])["colour"] == "red"


def test_second_create_of_a_name_conflicts_and_changes_nothing(site):
    site.created()
    site.send("inc")

    answer = site.create(colour="blue")
    site.world.run()

    assert answer.error.status == 409
    assert "colour" not in json.loads(site.row()["context"])


def test_repeated_create_with_its_request_key_answers_the_instance(site):
    first = site.create(key="k1")
    site.world.run(1_000)

    again, other = site.create(key="k1"), site.create(key="k2")
    site.world.run()

    assert again.body == first.body
    assert other.error.status == 409
    assert len(site.history()) == 1


def test_answer_that_nobody_understands_fails_its_event_and_ends_the_runner(site):
    site.created()
    runner = site.runners.current[1]
    runner._say = lambda rid, *rest: type(runner)._say(runner, rid, "9")

    answer = site.send("inc")
    site.world.run(1_000)

    assert answer.error.code == "machine-limit"
    assert site.runners.deaths == 1
    site.send("inc")
    site.world.run(1_000)
    assert site.n() == 1


def test_hundred_concurrent_events_are_each_applied_once_in_one_history(site):
    site.created()

    answers = [site.send("inc") for _ in range(100)]
    site.world.run()

    assert [a.n for a in answers] == list(range(1, 101))
    assert [t["seq"] for t in site.history()] == list(range(1, 102))
    ts = [t["ts"] for t in site.history()]
    assert ts == sorted(set(ts))


def test_event_that_changes_nothing_answers_the_state_behind_earlier_steps(site):
    site.created()

    answers = [site.send("inc"), site.send("noop"), site.send("inc")]
    site.world.run()

    assert [a.n for a in answers] == [1, 1, 2]
    assert len(site.history()) == 3


@pytest.mark.parametrize(("event", "status"), [("deny", 403), ("throw", 500)])
def test_refused_event_leaves_the_instance_as_it_was(site, event, status):
    site.created()

    answers = [site.send("inc"), site.send(event), site.send("inc")]
    site.world.run()

    assert answers[1].error.status == status
    assert [answers[0].n, answers[2].n] == [1, 2]
    assert len(site.history()) == 3


def test_effects_run_only_after_their_commit(site):
    site.created()
    site.store.failing = True

    answer = site.send("act")
    site.world.run()

    assert answer.error.status == 503
    assert site.runners.effects == []
    assert len(site.history()) == 1


def test_answer_waits_until_the_service_has_ended(site):
    site.created()

    answer = site.send("call")
    site.world.run()

    assert answer.n == 2  # the call, and the service's done event
    assert [t["kind"] for t in site.history()] == [Kind.INIT, Kind.CLIENT, Kind.SERVICE]
    assert site.row()["settle_deadline"] is None


def test_settle_limit_answers_with_the_latest_state_and_stops_the_service():
    site = Site(settle_limit_ms=90_000)
    site.created()
    start_ms = site.world.time_ms

    answer = site.send("hang-service")
    site.world.run(120_000)

    assert answer.n == 1
    assert answer.at_ms is not None
    assert 90_000 <= answer.at_ms - start_ms < 90_500
    assert site.row()["settle_deadline"] is None
    assert json.loads(site.row()["children"]) != []


def test_lost_service_gives_its_error_event_before_the_next_event():
    site = Site(settle_limit_ms=1_000)
    site.created()
    site.send("hang-service")
    site.world.run(5_000)

    answer = site.send("inc")
    site.world.run()

    assert answer.n == 2
    kinds = [t["kind"] for t in site.history()]
    assert kinds == [Kind.INIT, Kind.CLIENT, Kind.LOST_SERVICE, Kind.CLIENT]
    assert json.loads(site.row()["context"])["lost"] == 1


def test_events_while_settling_reach_the_live_activation_and_extend_its_limit():
    site = Site(settle_limit_ms=1_000)
    site.created()
    start_ms = site.world.time_ms
    first = site.send("hang-service")
    site.world.run(800)

    second = site.send("inc")
    site.world.run(10_000)

    assert first.at_ms == second.at_ms
    assert first.at_ms is not None
    assert first.at_ms - start_ms > 1_700
    assert [t["kind"] for t in site.history()].count(Kind.LOST_SERVICE) == 0


def test_killed_process_loses_the_service_and_nothing_else(site):
    site.created()
    done = site.send("inc")
    site.world.run(100)
    site.send("hang-service")
    site.world.run(100)

    site.start()
    answer = site.send("inc")
    site.world.run()

    assert done.n == 1
    assert answer.n == 3
    assert [t["kind"] for t in site.history()][-2:] == [Kind.LOST_SERVICE, Kind.CLIENT]


def test_conflict_is_computed_again_on_the_moved_row(site):
    site.created()
    site.send("inc")
    site.world.run()
    row = site.row()
    row["seq"] += 1
    row["context"] = json.dumps({"public": {"n": 40}})
    site.history().append({"seq": row["seq"], "kind": 1, "ts": row["ts"], "request_key": None})

    answers = [site.send("inc") for _ in range(5)]
    site.world.run()

    assert [a.n for a in answers] == [41, 42, 43, 44, 45]
    assert site.engine.conflicts >= 5


def test_request_key_is_applied_once_even_when_both_requests_are_in_flight(site):
    site.created()

    answers = [site.send("inc", key="k1"), site.send("inc", key="k1")]
    site.world.run()
    later = site.send("inc", key="k1")
    site.world.run()

    assert site.n() == 1
    assert [a.n for a in [*answers, later]] == [1, 1, 1]


def test_event_that_kills_its_runner_fails_alone(site):
    for slug in "abcdef":
        site.created(slug)

    answers = {s: [site.send("inc", s) for _ in range(3)] for s in "abcdef"}
    poison = site.send("kill", "c")
    after = site.send("inc", "c")
    site.world.run()

    assert poison.error.code == "machine-limit"
    assert after.n == 4
    assert all(a.error is None for group in answers.values() for a in group)
    assert {s: site.n(s) for s in "abcdef"} == {"a": 3, "b": 3, "c": 4, "d": 3, "e": 3, "f": 3}


def test_creation_in_flight_survives_another_events_killing_the_runner(site):
    site.created()

    poison = site.send("kill")
    answer = site.create("b")
    site.world.run()

    assert poison.error.code == "machine-limit"
    assert answer.body is not None


def test_context_over_the_limit_fails_the_event_only(site):
    site.created()

    answers = [site.send("inc"), site.send("inc", big=400_000), site.send("inc")]
    site.world.run()

    assert answers[1].error.code == "context-too-large"
    assert [answers[0].n, answers[2].n] == [1, 2]


def test_timer_fires_at_its_time_and_is_consumed(site):
    site.created()
    site.send("after", ms=5_000)
    site.world.run(4_900)
    assert site.n() == 1

    site.world.run(200)

    assert site.n() == 2
    assert site.history()[-1]["kind"] == Kind.TIMER
    assert site.store.deliveries == {}


@pytest.mark.parametrize("delay_ms", [100, 5_000])
def test_cancelled_timer_does_not_fire(site, delay_ms):
    site.created()
    site.send("after", ms=delay_ms)
    site.send("cancel")

    site.world.run(10_000)

    assert site.n() == 2
    assert site.store.deliveries == {}


def test_timer_survives_a_killed_process_and_fires_late(site):
    site.created()
    site.send("after", ms=500)
    site.world.run(100)
    site.runners.current.clear()
    site.timers.stop()
    site.world.run(10_000)

    site.start()
    site.world.run(1_000)

    assert site.n() == 2
    assert site.store.deliveries == {}


def test_failing_timer_is_tried_five_times_and_then_a_dead_letter(site):
    site.created()
    site.send("after", ms=10, then="throw")

    site.world.run(200_000)

    assert site.store.deliveries == {}
    (letter,) = site.store.dead_letters
    assert letter["attempts"] == 5
    assert letter["reason"].startswith("machine-error")


def test_machine_that_wakes_itself_without_end_is_slowed_down(site):
    site.created()
    site.send("again")

    site.world.run(1_000)
    after_a_second = site.n()
    site.world.run(10_000)

    assert 150 < after_a_second < 250  # the burst, and a hundred
    assert 950 < site.n() - after_a_second < 1_050


def test_machine_that_sends_to_itself_without_end_is_stopped_at_the_settle_limit():
    site = Site(settle_limit_ms=1_000)
    site.created()
    answer = site.send("to-self")
    site.world.run(5_000)
    n = site.n()
    site.world.run(5_000)

    assert answer.n == n
    assert n > 10
    site.send("inc")
    site.world.run(1_000)
    assert site.n() == n + 1


def test_paused_instance_refuses_events_and_resumes(site):
    site.created()
    row_id = site.row()["id"]
    done = Answer(site.world)
    site.engine.set_status((1, "a"), row_id, 1, done)
    site.world.run(100)
    refused = site.send("inc")
    site.world.run(100)
    site.engine.set_status((1, "a"), row_id, 0, Answer(site.world))
    site.world.run(100)
    accepted = site.send("inc")
    site.world.run()

    assert refused.error.code == "invalid-state"
    assert accepted.n == 1


def test_deleted_instance_is_gone_with_its_timers(site):
    site.created()
    site.send("after", ms=5_000)
    site.world.run(100)
    site.engine.delete((1, "a"), site.row()["id"], Answer(site.world))
    site.world.run(100)

    answer = site.send("inc")
    site.world.run(20_000)

    assert answer.error.status == 404
    assert site.store.deliveries == {}


def test_retired_runner_is_released_once_its_activations_have_left(site):
    site.created()
    runner = site.runners.current[1]
    site.send("call")
    site.world.run(3)
    del site.runners.current[1]

    site.engine.on_retire(runner)
    site.world.run()
    answer = site.send("inc")
    site.world.run()

    assert not runner.alive
    assert answer.n == 3


@pytest.mark.parametrize("line", [b"9\t0", b"\xff\xfe", b"X\t1\t2", b"", b"1\t0\tnot a state"])
def test_forged_lines_cost_the_runner_its_life_and_nobody_else(site, line):
    site.created()
    runner = site.runners.current[1]

    site.engine.on_lines(runner, [line])
    answer = site.send("inc")
    site.world.run()

    assert answer.n == 1


@pytest.mark.parametrize("seed", range(40))
def test_random_life_keeps_every_promise(seed):
    """Events of all kinds, killed runners and killed processes: what was answered is in the
    history once, what was refused is not, and every timer is consumed, pending or dead."""
    site = Site(seed, settle_limit_ms=3_000)
    rng = site.world.random
    kinds = ["inc"] * 6 + [
        "act",
        "call",
        "noop",
        "throw",
        "deny",
        "after",
        "cancel",
        "hang-service",
    ]
    slugs = "abc"
    for slug in slugs:
        site.created(slug)
    sent: list[tuple[str, str, Answer]] = []
    for i in range(300):
        slug, kind = rng.choice(slugs), rng.choice(kinds)
        sent.append((slug, kind, site.send(kind, slug, id=i, ms=rng.randint(1, 4_000))))
        if rng.random() < 0.02 and site.runners.current:
            site.runners.current[1].kill("killed")
        if rng.random() < 0.3:
            site.world.run(rng.uniform(0, 50))
    site.world.run(60_000)

    for i, (slug, kind, answer) in enumerate(sent):
        times = sum(json.loads(t["event"]).get("id") == i for t in site.history(slug))
        assert answer.count == 1, (seed, i, kind)
        if answer.error is None and kind != "noop":
            assert times == 1, (seed, i, kind)
        elif answer.error is not None:
            assert times == 0, (seed, i, kind, answer.error)
    for slug in slugs:
        seqs = [t["seq"] for t in site.history(slug)]
        assert seqs == list(range(1, len(seqs) + 1))
        ts = [t["ts"] for t in site.history(slug)]
        assert ts == sorted(set(ts))
    assert site.store.deliveries == {}
    assert site.timers.in_flight == 0


def noted(site):
    site.engine.journal.flush()
    fields = [(n.seq, json.loads(n.event)["type"], n.outcome, n.more) for n in site.store.notes]
    site.store.notes.clear()
    return fields


def test_events_that_led_to_no_transition_are_noted_with_their_place(site):
    site.created()
    for event in ("noop", "inc", "deny", "noop", "throw", "inc"):
        site.send(event)
    site.world.run()

    ours = [(1, "noop", Unheeded.IGNORED, 0), (2, "deny", Unheeded.DENIED, 0),
            (2, "noop", Unheeded.IGNORED, 0)]  # fmt: skip
    assert noted(site) == ours
    assert noted(site) == []


def test_timer_that_changes_nothing_is_noted(site):
    site.created()
    site.send("after", ms=10, then="noop")
    site.world.run(1_000)

    (note,) = noted(site)
    assert note == (2, "noop", Unheeded.IGNORED, 0)


@pytest.mark.parametrize("is_loaded", [True, False])
def test_event_to_a_paused_instance_is_noted(site, is_loaded):
    site.created()
    site.send("inc")
    site.world.run(100)
    site.row()["status"] = 1
    if not is_loaded:
        site.engine.end((1, "a"), is_deleted=False)
    site.send("inc")
    site.world.run(100)

    assert noted(site) == [(2, "inc", Unheeded.PAUSED, 0)]


def test_flood_of_ignored_events_is_noted_in_part_and_counted(site):
    site.created()
    answers = [site.send("noop") for _ in range(500)]
    site.world.run()

    notes = noted(site)
    assert all(answer.n == 0 for answer in answers)
    assert len(notes) == NOTES_OF_INSTANCE
    assert sum(1 + more for *_, more in notes) == 500


def test_what_is_noted_of_an_event_is_bounded(site):
    site.created()
    site.send("noop", text="x" * 10_000)
    site.world.run()
    site.engine.journal.flush()

    (note,) = site.store.notes
    assert len(note.event) == NOTED_CHARS


def test_event_that_comes_while_a_row_is_read_is_not_refused_by_what_that_says(site):
    site.created()
    site.engine.end((1, "a"), is_deleted=False)
    site.row()["status"] = 1
    answers: list[Answer] = []
    read = site.store._instance_row

    def read_and_resumed(row):
        found = read(row)
        if not answers:
            site.row()["status"] = 0
            answers.append(site.send("inc"))
        return found

    site.store._instance_row = read_and_resumed
    early = site.send("inc")
    site.world.run(1_000)

    assert early.error.code == "invalid-state"
    assert answers[0].n == 1
