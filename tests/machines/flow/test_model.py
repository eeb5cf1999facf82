import json
from typing import Any

import pytest

from machines.flow.errors import CannotDescribe
from machines.flow.model import Graph, StateValue, active_paths


def state(number: int, parent: int | None, key: str, **more: Any) -> dict[str, Any]:
    return {"number": number, "parent": parent, "key": key, "id": key, "type": "atomic", **more}


def transition(number: int, source: int, *targets: int, **more: Any) -> dict[str, Any]:
    base = {"number": number, "source": source, "targets": list(targets), "kind": "event"}
    return base | {"label": f"E{number}", "eventType": f"E{number}"} | more


def definition(**changes: Any) -> dict[str, Any]:
    """light: green → red{walk → stop} → green."""
    return {
        "name": "light",
        "xstate": 5,
        "states": [
            state(0, None, "light", type="compound", initial=1),
            state(1, 0, "green"),
            state(2, 0, "red", type="compound", initial=3),
            state(3, 2, "walk"),
            state(4, 2, "stop.it", type="final"),
        ],
        "transitions": [transition(0, 1, 2), transition(1, 3, 4), transition(2, 4, 1)],
        **changes,
    }


def light() -> Graph:
    return Graph.decode(json.dumps(definition()))


def test_paths_are_keys_joined_with_dots():
    assert light().paths == {0: "", 1: "green", 2: "red", 3: "red.walk", 4: "red.stop\\.it"}


def test_encoding_is_stable():
    graph = light()

    assert Graph.decode(graph.encode()).encode() == graph.encode()


def test_active_paths_come_with_their_ancestors():
    value: StateValue = {"red": {"left": "stop.it", "right": {"deep": "down"}}}

    assert active_paths(value) == [
        "",
        "red",
        "red.left",
        "red.left.stop\\.it",
        "red.right",
        "red.right.deep",
        "red.right.deep.down",
    ]


def test_active_paths_are_those_of_the_drawing_whatever_the_key():
    key = "\x00" + "A" * 10_000
    states = [state(0, None, "m", type="compound", initial=1), state(1, 0, key[:200])]
    graph = Graph.decode(json.dumps(definition(states=states, transitions=[])))

    assert active_paths(key)[-1] == graph.paths[1]


def test_folding_moves_edges_to_the_closed_state():
    folded = light().folded(["red"])

    assert list(folded.states) == [0, 1, 2]
    assert folded.states[2].type == "folded"
    assert [(t.number, t.source, t.targets) for t in folded.transitions] == [
        (0, 1, [2]),
        (2, 2, [1]),
    ]


def test_folding_the_root_a_leaf_or_nothing_known_changes_nothing():
    graph = light()

    assert graph.folded(["", "green", "no.such.state"]) is graph


@pytest.mark.parametrize(
    "changes",
    [
        {"states": []},
        {"states": [state(0, 1, "root")]},
        {"states": [state(0, None, "root", type="history")]},
        {"states": [state(1, None, "root")]},
        {"states": [state(0, None, "root", type="compound")]},
        {"states": [state(0, None, "root"), state(1, 0, "child")]},
        {"states": [state(0, None, "root", type="wrong")]},
        {"states": [state(0, None, "root", type="compound", initial=0), state(1, 0, "child")]},
        {"states": [state(0, None, "root", type="compound", initial=9), state(1, 0, "child")]},
        {"states": [state(0, None, "r", type="compound"), state(1, 2, "a"), state(2, 0, "b")]},
        {"transitions": [transition(1, 1, 2)]},
        {"transitions": [transition(0, 1, 99)]},
        {"transitions": [transition(0, -1, 1)]},
        {"transitions": [transition(0, 1, 2, kind="default")]},
        {"transitions": [transition(0, 1, 2, kind="magic")]},
        {"xstate": 3},
        {"name": 7},
    ],
)
def test_definitions_that_make_no_sense_are_refused(changes):
    with pytest.raises(CannotDescribe):
        Graph.decode(json.dumps(definition(**changes)))


def test_too_deep_and_too_long_definitions_are_refused():
    deep = [state(n, n - 1 if n else None, "s", type="compound") for n in range(60)]
    deep[-1]["type"] = "atomic"
    wide = [state(0, None, "root", type="compound")]
    wide += [state(n, 0, "A" * 1000) for n in range(1, 4000)]

    for states in (deep, wide):
        with pytest.raises(CannotDescribe):
            Graph.decode(json.dumps(definition(states=states, transitions=[])))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff\xfe", b'{"name": "x"', b"null"])
def test_what_is_no_definition_is_refused(data):
    with pytest.raises(CannotDescribe):
        Graph.decode(data)
