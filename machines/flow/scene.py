"""What the layouts of single containers share: directions, sizes, and what is laid out already."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

from machines.flow.dot import Run
from machines.flow.model import Graph
from machines.flow.plan import Hop, Plan, Side, plan, state_of
from machines.flow.words import (
    HISTORY_SIZE,
    MARK,
    PAD_X,
    Words,
    signs,
    title_width,
    words_of,
)

Direction = Literal["TB", "LR", "TB/LR", "LR/TB"]  # outside / inside
Point = tuple[float, float]
Size = tuple[float, float]
Key = tuple[int, tuple[Run, ...]]

# Distances in px.
INSET = 18.0  # between a container's border and what is inside
REGION_TOP = 2.0  # between a region's title and what is inside: no border needs room there
WIRE_GAP = 13.0  # between wires that end on one side of a state
SIDE_ENDS = 24.0  # kept free of wires there
HISTORY_GAP = 6.0

SCREEN_SHAPE = 1.5


@dataclass
class Interior:
    """A container laid out on its own; places are relative to its top left corner."""

    width: float
    height: float
    corners: dict[str, Point] = field(default_factory=dict)  # of boxes, pills and the dot
    sizes: dict[int, Size] = field(default_factory=dict)  # of its children
    separators: dict[int, Literal["left", "top"]] = field(default_factory=dict)  # of its regions
    ports: dict[str, float] = field(default_factory=dict)  # how far along their side
    pieces: list[tuple[Hop, list[Point]]] = field(default_factory=list)

    def on_border(self, port: str, side: Side, run: Run) -> Point:
        along = self.ports[port]
        if run == "TB":
            return (along, 0.0 if side == "source" else self.height)
        return (0.0 if side == "source" else self.width, along)


class Drafts:
    """What does not depend on directions, and the interiors that several of them share."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.plan: Plan = plan(graph)
        self.containers = [number for number, children in graph.children.items() if children]
        self.containers_in = {
            outer: [c for c in self.containers if c == outer or graph.is_inside(c, outer)]
            for outer in self.containers
        }
        self.words: dict[int, Words] = {
            number: words_of(graph, state, self.plan.staying[number])
            for number, state in graph.states.items()
        }
        self.pills_in: dict[int, list[str]] = defaultdict(list)
        for name, pill in self.plan.pills.items():
            self.pills_in[pill.home].append(name)
        self.side_min = self._side_minimums()
        self.interiors: dict[tuple[Key, Run], Interior] = {}

    def _side_minimums(self) -> dict[int, float]:
        """For each state the length of side that its wires need."""
        ends: dict[tuple[int, bool], int] = defaultdict(int)
        for hops in self.plan.hops.values():
            for hop in hops:
                for end, leaves in ((hop.tail, True), (hop.head, False)):
                    state = state_of(end.node)
                    if state is not None:
                        ends[state, leaves != hop.is_backward] += 1
        lengths: dict[int, float] = defaultdict(float)
        for (state, _), count in ends.items():
            lengths[state] = max(lengths[state], (count - 1) * WIRE_GAP + SIDE_ENDS)
        return lengths


class Scene:
    """One choice of directions."""

    def __init__(self, drafts: Drafts, direction: Direction) -> None:
        self.drafts = drafts
        self.graph, self.plan, self.words = drafts.graph, drafts.plan, drafts.words
        self.direction = direction
        self.runs: dict[int, Run] = {}
        for container in drafts.containers:
            self.runs[container] = self._choose_run(container)

    def _choose_run(self, container: int) -> Run:
        """Inner containers may run the other way, but not those whose border a wire crosses."""
        parent = self.graph.states[container].parent
        if parent is not None and container in self.plan.crossed:
            return self.runs[parent]
        ancestors = self.graph.ancestors[container]
        is_outer = all(self.graph.states[one].type == "parallel" for one in ancestors)
        outer, _, inner = self.direction.partition("/")
        return "TB" if (outer if is_outer else inner or outer) == "TB" else "LR"

    def key(self, container: int) -> Key:
        """Equal keys have equal contents, whatever the directions elsewhere."""
        inside = self.drafts.containers_in[container]
        return container, tuple(self.runs[inner] for inner in inside)

    def interior(self, container: int) -> Interior:
        return self.drafts.interiors[self._interior_key(container)]

    def keep(self, container: int, interior: Interior) -> None:
        self.drafts.interiors[self._interior_key(container)] = interior

    def has(self, container: int) -> bool:
        return self._interior_key(container) in self.drafts.interiors

    def _interior_key(self, container: int) -> tuple[Key, Run]:
        return self.key(container), self.run_around(container)

    def run_around(self, state: int) -> Run:
        """The direction of the container that the state is in."""
        parent = self.graph.states[state].parent
        return "TB" if parent is None else self.runs[parent]

    def size(self, state: int) -> Size:
        """The least size of a state's box. Containers have to be laid out already."""
        if self.graph.children[state]:
            interior = self.interior(state)
            return interior.width, interior.height
        if self.graph.states[state].type == "history":
            return HISTORY_SIZE, HISTORY_SIZE
        words = self.words[state]
        return self.roomy(state, words.width, words.height)

    def roomy(self, state: int, width: float, height: float) -> Size:
        """Enlarged, if needed, so that every wire has its place on the side where it ends."""
        side = self.drafts.side_min[state]
        if self.run_around(state) == "TB":
            return max(width, side), height
        return width, max(height, side)

    def header_width(self, container: int) -> float:
        """How far from its left border a container's header is written on."""
        words, state = self.words[container], self.graph.states[container]
        title = PAD_X + title_width(words.title) + MARK * len(signs(self.graph, state))
        if state.type == "parallel":
            title += len(self.histories(container)) * (HISTORY_SIZE + HISTORY_GAP)
        return max(title, words.width - PAD_X) if words.rows or words.blocks else title

    def histories(self, container: int) -> list[int]:
        """A parallel state's history states, which are drawn in its header."""
        states = self.graph.states
        return [c for c in self.graph.children[container] if states[c].type == "history"]


def screen_area(width: float, height: float) -> float:
    """Of the least screen of the usual shape that shows all of a picture."""
    return max(width / SCREEN_SHAPE, height) ** 2
