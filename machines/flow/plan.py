"""What has to be drawn for the transitions: pills, wires, and each wire's way through containers.

A transition is a pill (its words) with one wire from its source and one to each target; several
with the same source and targets share a pill. A container is a state with states inside; each is
laid out on its own. So a wire that crosses a border is cut there into hops, one for each container
on its way, and the pieces meet in a *port* on the border. The plan does not depend on the
directions in which containers are laid out.

P1  Every transition is in exactly one pill or, if it does not leave its state, in that state's box.
P2  The hops of one container form a graph without cycles, once backward ones are turned round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from machines.flow.model import Graph, Transition
from machines.flow.words import Block, block_of

# Where a wire passes through a border: in the first or in the last row of what is inside.
Side = Literal["source", "sink"]
Role = Literal["out", "in", "initial", "default"]

INITIAL = "i"  # the node of a container's initial dot
BORDER = "border"  # the inner border of a parallel state, where a wire to its inside starts


class End(NamedTuple):
    """A node of a container's layout, and for one that is a container the port that is meant."""

    node: str
    port: str = ""


@dataclass(frozen=True)
class Pill:
    blocks: list[Block]
    home: int  # the container that it is laid out in

    @property
    def width(self) -> int:
        return round(max(block.width for block in self.blocks))

    @property
    def height(self) -> int:
        return round(sum(block.height for block in self.blocks))


@dataclass(frozen=True)
class Wire:
    """A line, from the source to the pill ("out") or from it to a target ("in").

    "default" wires start at a history state, "initial" ones at a container's initial dot.
    """

    edge: Edge
    role: Role


@dataclass(frozen=True)
class Edge:
    """Transitions that are drawn as one, or an initial dot."""

    name: str  # "e" and the first transition's number, or "i" and the container's
    source: int
    targets: tuple[int, ...]
    transitions: list[Transition]


@dataclass(frozen=True)
class Hop:
    """A wire's way through one container."""

    wire: int  # its index in `Plan.wires`
    order: int  # of this piece within the wire
    tail: End
    head: End
    is_backward: bool  # against the flow; laid out from head to tail


def state_node(number: int) -> str:
    return f"n{number}"


def state_of(node: str) -> int | None:
    """The state that a node stands for, if it does."""
    return int(node[1:]) if node[0] == "n" else None


@dataclass
class Plan:
    graph: Graph
    staying: dict[int, list[Transition]] = field(default_factory=lambda: defaultdict(list))
    pills: dict[str, Pill] = field(default_factory=dict)  # by the edge's name
    wires: list[Wire] = field(default_factory=list)
    hops: dict[int, list[Hop]] = field(default_factory=lambda: defaultdict(list))
    ports: dict[int, dict[str, Side]] = field(default_factory=lambda: defaultdict(dict))
    crossed: set[int] = field(default_factory=set)  # containers through whose border a wire goes


def plan(graph: Graph) -> Plan:
    return _Planner(graph).plan


class _Planner:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.plan = Plan(graph)
        drawn = self._sort_transitions()
        self._backward = set(_backward_pairs(graph, drawn))
        for number, children in graph.children.items():
            initial = graph.states[number].initial
            if children and initial is not None and graph.states[number].type == "compound":
                self._add_initial(number, initial)
        for edge in drawn:
            if edge.transitions[0].kind == "default":
                self._add_default(edge)
            else:
                self._add_transitions(edge)

    # ---------------------------------------------------------------- what is drawn as a wire

    def _sort_transitions(self) -> list[Edge]:
        """Put the transitions that stay in their state's box into the plan; group the others."""
        merged: dict[tuple[int, tuple[int, ...]], list[Transition]] = defaultdict(list)
        for transition in self.graph.transitions:
            source = transition.source
            drawn = [self._drawn_target(source, target) for target in transition.targets]
            targets = tuple(dict.fromkeys(target for target in drawn if target is not None))
            if transition.kind == "default":
                # A parallel state's history is in the header, where no wire leads to.
                if targets and not self._is_in_parallel(source) and source not in targets:
                    merged[source, targets].append(transition)
            elif None in drawn or targets in ((), (source,)) or self._has_no_border(source):
                self.plan.staying[source].append(transition)
            else:
                merged[source, targets].append(transition)
        return [
            Edge(f"e{transitions[0].number}", source, targets, transitions)
            for (source, targets), transitions in merged.items()
        ]

    def _is_in_parallel(self, state: int) -> bool:
        parent = self.graph.states[state].parent
        return parent is not None and self.graph.states[parent].type == "parallel"

    def _has_no_border(self, source: int) -> bool:
        """A region's wires start at its edge, on its inside: there has to be one."""
        return self._is_in_parallel(source) and self.graph.states[source].type != "compound"

    def _drawn_target(self, source: int, target: int) -> int | None:
        """Where a wire to `target` ends; None if no wire can show it.

        Regions have no border, and a parallel state's history is in its header: a wire to either
        ends at the parallel state, and from inside of that there is none.
        """
        while target != source and self._is_in_parallel(target):
            parent = self.graph.states[target].parent
            assert parent is not None
            if source == parent or self.graph.is_inside(source, parent):
                return None
            target = parent
        return target

    # ---------------------------------------------------------------- wires

    def _add_initial(self, container: int, initial: int) -> None:
        target = initial  # XState 4 lets it lie deeper
        while self._is_in_parallel(target):
            parent = self.graph.states[target].parent
            assert parent is not None
            target = parent
        edge = Edge(f"i{container}", container, (target,), [])
        wire = self._new_wire(edge, "initial")
        self._lead(wire, End(INITIAL), container, target)

    def _add_default(self, edge: Edge) -> None:
        home = self.graph.states[edge.source].parent
        assert home is not None
        for target in edge.targets:
            wire = self._new_wire(edge, "default")
            backward = self._is_backward(edge.source, target)
            self._lead(wire, End(state_node(edge.source)), home, target, is_backward=backward)

    def _add_transitions(self, edge: Edge) -> None:
        graph, plan, source = self.graph, self.plan, edge.source
        first = edge.targets[0]
        leads_inside = graph.is_inside(first, source)
        backward = not leads_inside and self._is_backward(source, first)
        home = self._home(source, first)
        plan.pills[edge.name] = Pill([self._block(one, edge) for one in edge.transitions], home)
        out = self._new_wire(edge, "out")
        pill = End(edge.name)
        if leads_inside:
            self._start_inside(out, source, home, pill)
        elif home == source:
            port = self._new_port(home, "source")
            plan.hops[home].append(Hop(out, 0, End(port), pill, False))
        else:
            plan.hops[home].append(Hop(out, 0, End(state_node(source)), pill, backward))
        for target in edge.targets:
            wire = self._new_wire(edge, "in")
            if graph.is_inside(target, source):
                against = not leads_inside and not backward  # the pill is below the source
            else:
                against = self._is_backward(source, target)
            self._lead(wire, pill, home, target, is_backward=against)

    def _home(self, source: int, first: int) -> int:
        """The container that the pill is laid out in.

        Beside the source; or inside of it, if the transition leads there or the source is a region.
        """
        graph = self.graph
        if graph.is_inside(first, source):
            home = source
            while graph.states[home].type == "parallel":
                home = graph.child_towards(home, first)
            return home
        if graph.is_region(source):
            return source
        parent = graph.states[source].parent
        assert parent is not None, "every target is inside the root"
        return parent

    def _block(self, transition: Transition, edge: Edge) -> Block:
        """Names its targets if some of the wires end elsewhere."""
        if set(transition.targets) == set(edge.targets):
            return block_of(transition)
        return block_of(transition, ", ".join(self.graph.paths[t] for t in transition.targets))

    def _start_inside(self, wire: int, source: int, home: int, pill: End) -> None:
        """From the inner border of `source` to a pill in it, through regions if it is parallel."""
        at, tail, order = source, End(BORDER), 0
        while at != home:
            region = self.graph.child_towards(at, home)
            port = self._new_port(region, "source", is_crossed=True)
            head = End(state_node(region), port)
            self.plan.hops[at].append(Hop(wire, order, tail, head, False))
            at, tail, order = region, End(port), order + 1
        if home == source:
            tail = End(self._new_port(home, "source"))
        self.plan.hops[home].append(Hop(wire, order, tail, pill, False))

    def _lead(
        self, wire: int, tail: End, home: int, target: int, *, is_backward: bool = False
    ) -> None:
        """Lead a wire from `tail` in `home` to `target`."""
        graph = self.graph
        if target == home or graph.is_inside(home, target):
            self._lead_to_inner_border(wire, tail, home, target)
            return
        top = home if graph.is_inside(target, home) else graph.common_ancestor(home, target)
        is_between_regions = graph.states[top].type == "parallel"
        backward = is_backward and not is_between_regions
        at, order = home, 0
        while at != top:
            tail, at = self._leave(
                wire, order, tail, at, "source" if backward else "sink", backward
            )
            order += 1
        # Between regions the wire comes in from the far side, and from there on against the flow.
        entry: Side = "sink" if backward or is_between_regions else "source"
        for nxt in self._way_down(top, target):
            parent = graph.states[nxt].parent
            assert parent is not None
            against = backward or (is_between_regions and parent != top)
            if nxt == target:
                head = End(state_node(nxt))
            else:
                head = End(state_node(nxt), self._new_port(nxt, entry, is_crossed=True))
            self.plan.hops[parent].append(Hop(wire, order, tail, head, against))
            tail, order = End(head.port), order + 1

    def _lead_to_inner_border(self, wire: int, tail: End, home: int, target: int) -> None:
        at: int | None = home
        order = 0
        while at is not None and at != target:
            tail, at = self._leave(wire, order, tail, at, "sink", False)
            order += 1
        port = self._new_port(target, "sink")
        self.plan.hops[target].append(Hop(wire, order, tail, End(port), False))

    def _leave(
        self, wire: int, order: int, tail: End, at: int, side: Side, backward: bool
    ) -> tuple[End, int]:
        """Out of `at` through its border; returns where the wire goes on, and in what container."""
        port = self._new_port(at, side, is_crossed=True)
        self.plan.hops[at].append(Hop(wire, order, tail, End(port), backward))
        parent = self.graph.states[at].parent
        assert parent is not None
        return End(state_node(at), port), parent

    def _way_down(self, top: int, target: int) -> Iterator[int]:
        """From below `top` to `target` itself."""
        chain = [target, *self.graph.ancestors[target]]
        return reversed(chain[: chain.index(top)])

    def _is_backward(self, source: int, target: int) -> bool:
        if self.graph.is_inside(source, target):
            return False
        top = self.graph.common_ancestor(source, target)
        pair = (self.graph.child_towards(top, source), self.graph.child_towards(top, target))
        return pair in self._backward

    def _new_wire(self, edge: Edge, role: Role) -> int:
        self.plan.wires.append(Wire(edge, role))
        return len(self.plan.wires) - 1

    def _new_port(self, container: int, side: Side, *, is_crossed: bool = False) -> str:
        """`is_crossed`: the wire goes on outside, so both sides have to run in one direction."""
        if is_crossed:
            self.plan.crossed.add(container)
        ports = self.plan.ports[container]
        name = f"p{len(ports)}_{container}"
        ports[name] = side
        return name


def _backward_pairs(graph: Graph, edges: list[Edge]) -> Iterator[tuple[int, int]]:
    """Pairs of siblings whose edge goes against the flow: depth first from the initial state.

    Breaking cycles here and not in Graphviz keeps a pill between its two states, and small edits
    from turning a picture over. Edges into the initial state always go back.
    """
    following: dict[int, list[int]] = defaultdict(list)
    for edge in edges:
        for target in edge.targets:
            source = edge.source
            if not graph.is_inside(target, source) and not graph.is_inside(source, target):
                top = graph.common_ancestor(source, target)
                sibling = graph.child_towards(top, target)
                following[graph.child_towards(top, source)].append(sibling)
    done: set[int] = set()
    for number, children in graph.children.items():
        initial = graph.states[number].initial
        first = None if initial is None else graph.child_towards(number, initial)
        for child in children if first is None else [first, *children]:
            if child not in done:
                yield from _back_edges(child, first, following, done)


def _back_edges(
    start: int, first: int | None, following: dict[int, list[int]], done: set[int]
) -> Iterator[tuple[int, int]]:
    stack = [(start, iter(following[start]))]
    on_stack = {start}
    while stack:
        state, rest = stack[-1]
        following_state = next(rest, None)
        if following_state is None:
            stack.pop()
            on_stack.discard(state)
            done.add(state)
        elif following_state in on_stack or following_state == first:
            yield state, following_state
        elif following_state not in done:
            on_stack.add(following_state)
            stack.append((following_state, iter(following[following_state])))
