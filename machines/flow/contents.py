"""The layout of what is in one compound state: rows by Graphviz, wires and box by us.

Graphviz is asked twice. The first answer says in which row everything is; a wire that passes a row
on its way then gets a node of its own there, so that the second answer also says where it passes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from machines.flow import wires
from machines.flow.dot import Link, Node, Place, Source
from machines.flow.plan import INITIAL, End, Hop, state_node, state_of
from machines.flow.scene import INSET, REGION_TOP, Interior, Point, Scene
from machines.flow.straighten import straighten

DOT_SIZE = 10.0  # of the initial dot, px
PORT_WIDTH = 1.0
HEADER_GAP = 12.0  # between what is written in a header and a wire through it
SAME_ROW = 1.5  # px

# How strongly Graphviz keeps a wire short and straight.
INITIAL_WEIGHT, SPINE_WEIGHT, WEIGHT, BACKWARD_WEIGHT = 9, 8, 2, 1
END_FACTOR, PASSING_FACTOR = 2, 8  # for a long wire's first and last piece; for those between

HEADER = "header"  # a node that keeps the first row's left end free
SPINE = "spine"


@dataclass
class _Way:
    """A hop as Graphviz sees it: from the upper row to the lower one."""

    hop: Hop
    weight: int
    is_reversed: bool
    passes: list[str] = field(default_factory=list)  # nodes in the rows between


class Contents:
    """A compound state whose contents are being laid out."""

    def __init__(self, scene: Scene, container: int) -> None:
        self._scene = scene
        self._container = container
        self._run = scene.runs[container]
        self._ports = scene.plan.ports[container]
        self._ways = [self._way(hop) for hop in scene.plan.hops[container]]
        self._boxes = self._all_nodes()
        self._nodes: dict[str, wires.Node] = {}
        self._routes: list[list[wires.Point]] = []

    # ---------------------------------------------------------------- to Graphviz

    def source(self) -> Source:
        header = [HEADER] if HEADER in self._boxes else []
        first = [port for port, side in self._ports.items() if side == "source"]
        last = [port for port, side in self._ports.items() if side == "sink"]
        passes = [Node(name, 0.0, 0.0, is_pass=True) for way in self._ways for name in way.passes]
        links = [link for way in self._ways for link in self._links(way)]
        links += [Link(End(HEADER), End(port), 1, keeps_row=True) for port in first if header]
        nodes = [*self._boxes.values(), *passes]
        return Source(self._run, nodes, links, header + first, last)

    def _all_nodes(self) -> dict[str, Node]:
        scene, container = self._scene, self._container
        spine = self._spine()
        nodes: dict[str, Node] = {}
        if self._run == "TB" and "source" in self._ports.values():
            nodes[HEADER] = Node(HEADER, self._header_width() + HEADER_GAP - INSET, PORT_WIDTH)
        for port in self._ports:
            nodes[port] = Node(port, PORT_WIDTH, PORT_WIDTH)
        if any(way.hop.tail.node == INITIAL for way in self._ways):
            nodes[INITIAL] = Node(INITIAL, DOT_SIZE, DOT_SIZE)
        for child in scene.graph.children[container]:
            name = state_node(child)
            ports, run = {}, self._run
            if scene.graph.children[child]:
                interior, run = scene.interior(child), scene.runs[child]
                sides = scene.plan.ports[child]
                ports = {port: (sides[port], at) for port, at in interior.ports.items()}
            nodes[name] = Node(name, *scene.size(child), ports, run, SPINE if name in spine else "")
        for name in scene.drafts.pills_in[container]:
            pill = scene.plan.pills[name]
            group = SPINE if name in spine else ""
            nodes[name] = Node(name, pill.width, pill.height, group=group)
        return nodes

    def _header_width(self) -> float:
        """Wires through a region's top come through the parallel state's header as well."""
        graph, at = self._scene.graph, self._container
        width = self._scene.header_width(at)
        while graph.is_region(at):
            parent = graph.states[at].parent
            assert parent is not None
            width = max(width, self._scene.header_width(parent))
            at = parent
        return width

    def _way(self, hop: Hop) -> _Way:
        edge = self._scene.plan.wires[hop.wire].edge
        if hop.tail.node == INITIAL:
            weight = INITIAL_WEIGHT
        elif hop.is_backward:
            weight = BACKWARD_WEIGHT
        else:
            weight = SPINE_WEIGHT if self._is_spine(edge.source, edge.targets) else WEIGHT
        return _Way(hop, weight, hop.is_backward)

    def _is_spine(self, source: int, targets: tuple[int, ...]) -> bool:
        """Whether an edge leads to the state that the author wrote next.

        Such edges are kept straight: it is how the author thinks of the machine.
        """
        graph, container = self._scene.graph, self._container
        if len(targets) != 1 or graph.is_inside(targets[0], source):
            return False
        if not all(graph.is_inside(state, container) for state in (source, targets[0])):
            return False
        siblings = graph.children[container]
        at = siblings.index(graph.child_towards(container, source))
        to = siblings.index(graph.child_towards(container, targets[0]))
        return to == at + 1

    def _spine(self) -> set[str]:
        return {
            end.node
            for way in self._ways
            if way.weight == SPINE_WEIGHT
            for end in (way.hop.tail, way.hop.head)
        }

    def _links(self, way: _Way) -> list[Link]:
        ends = [way.hop.tail, *(End(name) for name in way.passes), way.hop.head]
        if way.is_reversed:
            ends[0], ends[-1] = ends[-1], ends[0]
        if not way.passes:
            return [Link(ends[0], ends[1], way.weight)]
        factors = [END_FACTOR] + [PASSING_FACTOR] * (len(way.passes) - 1) + [END_FACTOR]
        return [
            Link(tail, head, way.weight * factor)
            for tail, head, factor in zip(ends, ends[1:], factors, strict=False)
        ]

    # ---------------------------------------------------------------- from Graphviz

    def read(self, places: dict[str, Place]) -> bool:
        """Take what Graphviz has answered; False if it has to be asked again.

        The second answer has the same rows: in the first one every wire was as short as can be, and
        its length is now fixed by the nodes that it passes through.
        """
        self._nodes = {}
        for name, place in places.items():
            self._nodes[name] = self._wire_node(name, place)
        _number_rows(self._nodes)
        if any(way.passes for way in self._ways):
            return True
        for number, way in enumerate(self._ways):
            tail, head = self._upper_lower(way)
            if self._nodes[tail].row > self._nodes[head].row:
                way.is_reversed = not way.is_reversed
                tail, head = head, tail
            between = range(self._nodes[tail].row + 1, self._nodes[head].row)
            way.passes = [f"w{number}_{row}" for row in between]
        return not any(way.passes for way in self._ways)

    def _wire_node(self, name: str, place: Place) -> wires.Node:
        node = self._boxes.get(name)
        if node is None or name in self._ports or name == HEADER:
            across = node.width if node is not None and name == HEADER else 0.0
            return wires.Node(place.u, place.v, 0.0, across, corner=0.0)
        along, across = node.height, node.width
        if self._run == "LR":
            along, across = across, along
        state = state_of(name)
        is_history = state is not None and self._scene.graph.states[state].type == "history"
        corner = (
            8.0
            if is_history
            else DOT_SIZE / 2
            if name == INITIAL
            else min(11.0, max(0.0, across / 2 - 5.0))
        )
        return wires.Node(place.u, place.v, along, across, corner)

    def _upper_lower(self, way: _Way) -> tuple[str, str]:
        ends = (way.hop.tail.node, way.hop.head.node)
        return (ends[1], ends[0]) if way.is_reversed else ends

    def finish(self) -> None:
        """Route the wires."""
        lines = [self._line(way) for way in self._ways]
        boxes = {name: node for name, node in self._nodes.items() if name in self._boxes}
        wires.join_ends(boxes, lines)
        straighten(boxes, lines, self._anchored(lines))
        self._routes = wires.lay_tracks(boxes, lines)
        self._nodes = boxes

    def _anchored(self, lines: list[wires.Line]) -> set[str]:
        """What has to stay for a picture to keep its order: states in the middle of things."""
        ends = Counter(name for line in lines for name in (line.tail, line.head))
        return {name for name in self._boxes if state_of(name) is not None and ends[name] > 1} | {
            HEADER
        }

    def _line(self, way: _Way) -> wires.Line:
        tail, head = way.hop.tail, way.hop.head
        if way.is_reversed:
            tail, head = head, tail
        return wires.Line(
            tail.node,
            head.node,
            [self._nodes[name].v for name in way.passes],
            self._fixed(tail.node, tail.port),
            self._fixed(head.node, head.port),
            way.weight,
        )

    def _fixed(self, node: str, port: str) -> float | None:
        """Where on a child's side its port is, from the middle."""
        if not port:
            return None
        box = self._boxes[node]
        _, at = box.ports[port]
        return at - (box.width if box.ports_run == "TB" else box.height) / 2

    # ---------------------------------------------------------------- the box around it

    def enclose(self, scene: Scene) -> Interior:
        """The container's box. `scene` may differ from ours in the direction around it."""
        container, run = self._container, self._run
        words = scene.words[container]
        low, high, length = self._extent()
        top = words.height + (REGION_TOP if scene.graph.is_region(container) else INSET)
        inner = (high - low, length) if run == "TB" else (length, high - low)
        width, height = scene.roomy(
            container, max(words.width, inner[0] + 2 * INSET), top + inner[1] + INSET
        )
        interior = Interior(round(width), round(height))
        left = (interior.width - inner[0]) / 2

        def xy(point: wires.Point) -> Point:
            u, v = point
            return (left + v - low, top + u) if run == "TB" else (left + u, top + v - low)

        for name, node in self._nodes.items():
            x, y = xy((node.u, node.v))
            if name in self._ports:
                interior.ports[name] = x if run == "TB" else y
            elif name != HEADER:
                box = self._boxes[name]
                interior.corners[name] = (x - box.width / 2, y - box.height / 2)
        interior.sizes = {c: scene.size(c) for c in scene.graph.children[container]}
        for way, route in zip(self._ways, self._routes, strict=True):
            piece = [xy(point) for point in (reversed(route) if way.is_reversed else route)]
            interior.pieces.append((way.hop, self._to_border(way.hop, piece, interior)))
        return interior

    def _extent(self) -> tuple[float, float, float]:
        """The least and the greatest place across, and the length along the flow."""
        nodes = self._nodes.values()
        points = [point for route in self._routes for point in route]
        low = min([node.v - node.across / 2 for node in nodes] + [v for _, v in points])
        high = max([node.v + node.across / 2 for node in nodes] + [v for _, v in points])
        return low, high, max(node.u + node.along / 2 for node in nodes)

    def _to_border(self, hop: Hop, piece: list[Point], interior: Interior) -> list[Point]:
        if hop.tail.node in self._ports:
            port = hop.tail.node
            piece = [interior.on_border(port, self._ports[port], self._run), *piece]
        if hop.head.node in self._ports:
            port = hop.head.node
            piece = [*piece, interior.on_border(port, self._ports[port], self._run)]
        return piece


def _number_rows(nodes: dict[str, wires.Node]) -> None:
    row, u = -1, float("-inf")
    for node in sorted(nodes.values(), key=lambda node: node.u):
        if node.u - u > SAME_ROW:
            row, u = row + 1, node.u
        node.row = row
