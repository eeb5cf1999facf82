"""The picture of an instance's machine: its states as a tree, and what of it to light up."""

from typing import Any, NamedTuple

from instances.explain import Definition
from instances.pages.moment import Moment
from machines.flow.model import Graph, Transition, active_paths
from machines.flow.text import clean
from machines.flow.text import duration as delay

STATES_MAX = 600  # of the tree
TRANSITIONS_PER_STATE_MAX = 20


class Step(NamedTuple):
    """A transition in words: "pay → charging"."""

    number: int
    event: str  # type of an event that people may send; empty for others
    label: str
    guard: str
    targets: str


class Node(NamedTuple):
    path: str
    key: str
    kind: str  # parallel, region, final, history …; empty for an ordinary state
    level: int
    is_leaf: bool
    position: int
    size: int
    steps: list[Step]


class StateTree(NamedTuple):
    nodes: list[Node]  # document order, the root left out
    is_cut: bool


def state_tree_of(definition: Definition) -> StateTree:
    graph = definition.graph
    nodes: list[Node] = []
    steps: dict[int, list[Transition]] = {}
    for transition in graph.transitions:
        steps.setdefault(transition.source, []).append(transition)

    def add(number: int, level: int, position: int, size: int) -> None:
        state = graph.states[number]
        children = graph.children[number]
        nodes.append(
            Node(
                path=graph.paths[number],
                key=clean(state.key),
                kind=_kind(graph, number),
                level=level,
                is_leaf=not children,
                position=position,
                size=size,
                steps=[_step(graph, t) for t in steps.get(number, [])][:TRANSITIONS_PER_STATE_MAX],
            )
        )
        for index, child in enumerate(children):
            add(child, level + 1, index + 1, len(children))

    top = graph.children[0]
    for index, child in enumerate(top):
        if len(nodes) < STATES_MAX:
            add(child, 1, index + 1, len(top))
    return StateTree(nodes[:STATES_MAX], len(graph.states) - 1 > STATES_MAX)


def _kind(graph: Graph, number: int) -> str:
    if graph.is_region(number):
        return "region"
    kind = graph.states[number].type
    return "" if kind in ("atomic", "compound") else kind


def _step(graph: Graph, transition: Transition) -> Step:
    return Step(
        number=transition.number,
        event=transition.event_type if transition.kind == "event" else "",
        label=clean(_label(transition)),
        guard=transition.guard or "",
        targets=", ".join(
            clean(graph.paths[target] or graph.name) for target in transition.targets
        ),
    )


def _label(transition: Transition) -> str:
    match transition.kind:
        case "event" | "wildcard":
            return transition.label
        case "after":
            return f"after {delay(transition.label)}"
        case _:
            return f"{transition.kind} {transition.label}".strip()


def highlights_of(
    definition: Definition | None, moment: Moment, *, is_past: bool
) -> dict[str, Any]:
    """What to light up: paths of active states, the transition just taken, the events next."""
    highlights: dict[str, Any] = {
        "seq": moment.seq,
        "active": active_paths(moment.value),
        "taken": None,
        "next": [],
        "past": is_past,
    }
    if definition is not None:
        highlights["taken"] = definition.taken(moment.before, moment.event_type, moment.value)
        if not moment.is_done and not is_past:
            highlights["next"] = [h.event_type for h in definition.handling(moment.value)]
    return highlights
