"""Definitions as the real sandbox reads them, from good code and from bad."""

import subprocess

import pytest

from instances.runtime.bundle import BundleCode
from machines.flow import extraction
from machines.flow.errors import CannotDescribe
from tests.machines.flow.machines import EXAMPLES, describe_source, extractor, graph_of


def transitions(name, source):
    graph = graph_of(name)
    [number] = [number for number, path in graph.paths.items() if path == source]
    return [
        (t.kind, t.label, t.guard, t.is_else, t.actions, [graph.paths[x] for x in t.targets])
        for t in graph.transitions
        if t.source == number
    ]


def state(name, path):
    graph = graph_of(name)
    return next(graph.states[number] for number, found in graph.paths.items() if found == path)


def test_promises_delays_and_guards_of_xstate_5():
    assert transitions("fetch", "loading") == [
        ("event", "CANCEL", None, False, [], ["idle"]),
        ("done", "", None, False, ["set data"], ["success"]),
        ("error", "", "canTryAgain", False, [], ["waiting"]),
        ("error", "", None, True, [], ["failure"]),
    ]
    assert transitions("fetch", "waiting")[1][:2] == ("after", "backoff")
    assert state("fetch", "loading").entry == ["set tries"]  # not what XState adds for `after`
    assert state("fetch", "waiting").entry == []


def test_conditions_delays_and_activities_of_xstate_4():
    assert transitions("light4", "light") == [
        ("event", "CAR", "context.cars < 99", False, ["set cars"], []),
        ("event", "NIGHT", None, False, [], ["light.yellow"]),
    ]
    assert transitions("light4", "light.green") == [
        ("after", "GREEN_TIME", "isBusy", False, [], ["light.yellow"]),
        ("after", "GREEN_TIME", None, True, [], ["light.red"]),
    ]
    assert transitions("light4", "light.yellow")[0][2] == "in #light.power.on"
    assert transitions("light4", "light.red")[0][1] == "1e3 * context.cars"
    assert [one.src for one in state("light4", "light.red").invoke] == ["burnRed"]
    assert state("light4", "light.green").exit == ["stopCounting"]


def test_history_and_nested_initial_states_of_xstate_4():
    graph = graph_of("session4")
    work = state("session4", "work")

    assert graph.paths[work.initial] == "work.mail.inbox"
    assert state("session4", "work.last").history == "deep"
    assert transitions("session4", "work.last") == [
        ("default", "", None, False, [], ["work.calendar"])
    ]
    assert [t.is_forbidden for t in graph.transitions if t.label == "GUEST"] == [True]


def test_actions_are_called_as_their_author_would():
    starting = state("actors", "starting")

    assert state("actors", "").entry == ["log", "spawn feed"]
    assert starting.entry == [
        "raise TICK",
        "send SUBSCRIBE to news",
        "emit started",
        "set count, seen",
        "send CHILD_STARTED to parent",
        'enqueue("one")',
    ]
    assert starting.exit == ["cancel tick", "sayGoodbye"]
    assert [one.src for one in starting.invoke] == ["load", "feed", "readSettings", "child"]
    assert transitions("actors", "starting")[0][4] == ["inline", "count", "a", "b", "c", "d"]
    assert [kind for kind, *_ in transitions("actors", "starting")] == [
        "event",
        "done",
        "error",
        "snapshot",
        "done",
    ]


def test_guards_made_of_guards():
    assert transitions("guards", "document.draft")[0][2] == "isOwner and (isAdmin or not isLocked)"
    assert transitions("guards", "document.draft")[1][2] == 'hasRole(role: "editor")'
    assert transitions("guards", "document.published")[0][2] == "context.editors.includes(event.by)"


def test_descriptions_tags_and_meta():
    assert graph_of("walk").description == "What a dog does all day."
    assert state("walk", "asleep").description.startswith("On the sofa")
    assert state("feedback", "prompt").tags == ["visible", "question"]
    assert state("feedback", "prompt").meta == {"view": "Prompt"}


def test_several_targets_and_reentry():
    assert transitions("fork", "outside")[0][5] == ["inside.left.two", "inside.right.two"]
    internal = {t.label: t.is_internal for t in graph_of("events").transitions}
    assert (internal["REFRESH"], internal["PING"]) == (False, True)


def test_all_examples_can_be_described():
    for path in EXAMPLES:
        assert graph_of(f"example:{path.stem}").states


MACHINE = 'import { createMachine } from "npm:xstate@5"; export default createMachine({ id: "m" });'


def test_code_that_prints_and_starts_timers_is_described_all_the_same():
    graph = describe_source("console.log('READY'); setInterval(() => {}, 10);" + MACHINE)

    assert graph.name == "m"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("export default 7;", "not an XState"),
        ("export const machine = 7;", "not an XState"),
        ("export default {root: {}}", "not an XState"),
        ("throw new Error('no luck');", "no luck"),
        ("export default new Proxy({}, {get() { throw new Error('trap'); }});", "trap"),
        ("Deno.exit(0);", "process ended"),
        ("Deno.stdout.writeSync(new TextEncoder().encode('{}\\n')); Deno.exit(0)", "no answer"),
        ("Deno.stdout.writeSync(new TextEncoder().encode('nonsense\\n'))", "interfered"),
        ("const a = []; for (;;) a.push(new Array(1e6).fill(a.length));", "process ended"),
        ("const a = []; for (;;) a.push(new Uint8Array(1e7).fill(1));", "ended|allocation"),
    ],
)
def test_bad_code_is_refused_with_a_reason(source, message):
    with pytest.raises(CannotDescribe, match=message):
        describe_source(source + "\nexport const x = 1;")


def test_code_that_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr(extraction, "TIME_LIMIT_S", 1.0)

    with pytest.raises(CannotDescribe, match="did not load within"):
        describe_source("for (;;) {}")


def test_output_is_bounded(monkeypatch):
    monkeypatch.setattr(extraction, "OUTPUT_BYTES_MAX", 10_000)
    code = BundleCode("Deno.stdout.writeSync(new Uint8Array(1e6).fill(65))", [])

    with pytest.raises(CannotDescribe, match="more than"):
        extractor().describe(code)


def test_code_has_no_permission():
    with pytest.raises(CannotDescribe, match=r"(?i)requires|denied"):
        describe_source("Deno.readTextFileSync('/etc/passwd');")
    with pytest.raises(CannotDescribe, match=r"(?i)requires|denied"):
        describe_source("Deno.env.get('HOME');")


def test_enormous_machines_are_refused():
    states = "Object.fromEntries(Array.from({length: 6000}, (_, i) => ['s' + i, {}]))"
    source = MACHINE.replace('{ id: "m" }', f'{{ id: "m", initial: "s0", states: {states} }}')

    with pytest.raises(CannotDescribe, match="more than 5000 states"):
        describe_source(source)


def test_the_extractor_is_well_typed(tmp_path):
    checked = subprocess.run(
        [extractor().deno, "check", "--no-config", "--no-lock", extraction.SOURCE],
        env={"DENO_DIR": str(tmp_path), "HOME": str(tmp_path), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
