"""What goes with a picture: the tree, Mermaid, the file, and how drawings are stored."""

import re
from xml.etree import ElementTree

import pytest

from machines.flow import drawing as drawings
from machines.flow.drawing import draw, draw_standalone, drawing_key
from machines.flow.errors import CannotDraw
from machines.flow.folding import VISIBLE_MAX, readable_folds
from machines.flow.mermaid import to_mermaid
from machines.flow.tree import sentence, to_tree
from tests.machines.flow.geometry import problems
from tests.machines.flow.machines import NAMES, graph_of


def sentences(name):
    graph = graph_of(name)
    return [sentence(graph, transition) for transition in graph.transitions]


def test_transitions_are_said_in_sentences():
    assert sentences("fetch") == [
        "on FETCH, go to loading",
        "on CANCEL, go to idle",
        "when done, go to success, and do set data",
        "on an error, if canTryAgain, go to waiting",
        "on an error, otherwise, go to failure",
        "on CANCEL, go to idle",
        "after backoff, go to loading",
        "on RETRY, go to loading, and do set tries",
    ]
    assert "on RESIZE, it is ignored" in sentences("events")
    assert "on REFRESH, enter it again, and do draw" in sentences("events")
    assert "at first, go to method.cash" in sentences("payment-history")


@pytest.mark.parametrize("name", NAMES)
def test_the_tree_has_every_state_and_transition_once(name):
    graph = graph_of(name)
    tree = ElementTree.fromstring(to_tree(graph))

    items = [item for item in tree.iter("li") if item.get("role") == "treeitem"]
    nodes = [item.get("data-node") for item in items if "data-node" in item.attrib]
    assert nodes == [graph.paths[number] for number in _preorder(graph)]
    numbers = sorted(
        int(item.get("data-transition", 0)) for item in items if "data-transition" in item.attrib
    )
    assert numbers == [transition.number for transition in graph.transitions]
    assert [item.get("tabindex") for item in items].count("0") == 1
    assert {element.tag for element in tree.iter()} <= {"ul", "li", "span"}


def _preorder(graph, number=0):
    yield number
    for child in graph.children[number]:
        yield from _preorder(graph, child)


def test_positions_in_the_tree_count_from_one():
    tree = ElementTree.fromstring(to_tree(graph_of("device-history")))

    for group in tree.iter("ul"):
        items = [item for item in group if item.tag == "li"]
        assert [item.get("aria-posinset") for item in items] == [
            str(n + 1) for n in range(len(items))
        ]
        assert {item.get("aria-setsize") for item in items} == {str(len(items))}


def test_mermaid_says_the_same():
    text = to_mermaid(graph_of("fetch"))

    assert text.startswith("stateDiagram-v2\n")
    assert '  state "loading" as s2\n' in text
    assert "  [*] --> s1\n" in text
    assert "  s4 --> [*]\n" in text
    assert "  s2 --> s3 : error [canTryAgain]\n" in text
    assert "  s2 --> s5 : error [else]\n" in text


def test_mermaid_regions_and_notes():
    assert to_mermaid(graph_of("text-editor")).count("  --\n") == 3
    assert "note right of s1\n    powerOut → blinking\n" in to_mermaid(graph_of("traffic-light"))


def test_mermaid_keeps_hostile_names_from_being_syntax():
    lines = to_mermaid(graph_of("hostile")).splitlines()

    assert all(re.fullmatch(r'[\w\s\-.,!?/*+=()#;:"{}\[\]>→…�]*', line) for line in lines)
    assert not any("<script" in line or '";' in line.replace("#34;", "") for line in lines)
    assert len({line.count('"') for line in lines}) == 2  # none, or the two of a name


def test_a_file_brings_its_colours():
    light, dark = (draw_standalone(graph_of("fetch"), theme) for theme in ("light", "dark"))

    for svg in (light, dark):
        ElementTree.fromstring(svg)
        assert "var(" not in svg
        assert "light-dark(" not in svg
        assert svg.count("<text") == svg.count("textLength")
    assert ".flow-box { fill: #ffffff" in light
    assert ".flow-box { fill: #1a1c20" in dark
    assert "is-active" not in light


def test_large_machines_are_drawn_folded_so_that_they_can_be_read():
    graph = graph_of("hundred-fifty")

    assert len(graph.states) == 150
    assert len(graph.folded(readable_folds(graph)).states) - 1 <= VISIBLE_MAX
    drawing = draw(graph)
    assert max(drawing.width / 1.5, drawing.height) <= drawings.FOLDED_SIDE_MAX
    assert problems(drawing.svg, graph.folded(drawing.folded)) == {}
    assert drawing.tree.count('role="treeitem"') == len(graph.states) + len(graph.transitions)


def test_opening_a_state_does_not_turn_the_picture_over():
    graph = graph_of("wizard")
    closed = draw(graph, folded=["address", "delivery", "payment"])

    for outer in ("TB", "LR"):
        opened = draw(graph, folded=["address"], outer=outer)
        assert opened.direction.startswith(outer)
    assert draw(graph, direction=closed.direction).direction == closed.direction


def test_active_states_are_kept_open():
    graph = graph_of("hundred-fifty")

    folds = readable_folds(graph, keep_open=["pricing", "pricing.gather"])

    assert "pricing" not in folds
    assert "pricing.gather" not in folds


def test_small_machines_are_not_folded():
    assert readable_folds(graph_of("order-process")) == []
    assert draw(graph_of("player")).folded == []


def test_every_choice_has_its_own_key(monkeypatch):
    one, other = graph_of("toggle").encode(), graph_of("fetch").encode()
    keys = [
        drawing_key(one),
        drawing_key(other),
        drawing_key(one, []),
        drawing_key(one, ["a"]),
        drawing_key(one, None, "LR"),
        drawing_key(one, None, None, "LR"),
    ]
    monkeypatch.setattr(drawings, "layout_version", lambda: "newer")

    assert len({*keys, drawing_key(one)}) == 7
    assert drawing_key(one, ["b", "a"]) == drawing_key(one, ["a", "b", "a"])


def test_what_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr("machines.flow.layout.TIME_LIMIT_S", 0.0)

    with pytest.raises(CannotDraw, match="too long"):
        draw(graph_of("hundred-fifty"), folded=[])
