"""The layout of a parallel state: its regions side by side or one above the other, in one box.

Regions have no boxes of their own; dashed lines divide them. Wires from one region to another go
through a gutter at the far end, wires through the parallel state's border go straight through it.
"""

from __future__ import annotations

from machines.flow.plan import BORDER, End, Hop, state_node, state_of
from machines.flow.scene import (
    HISTORY_GAP,
    REGION_TOP,
    Interior,
    Point,
    Scene,
    Size,
    screen_area,
)
from machines.flow.words import HISTORY_SIZE, MARK, PAD_X, PAD_Y, TITLE_LINE, signs, title_width

LANE = 16.0  # px for each wire between two regions
LANE_START = 12.0
GUTTER_MARGIN = 8.0


class Regions:
    """A parallel state whose regions are laid out already."""

    def __init__(self, scene: Scene, container: int) -> None:
        self._scene = scene
        self._container = container
        self._run = scene.runs[container]
        self._ports = scene.plan.ports[container]
        self._regions = [c for c in scene.graph.children[container] if scene.graph.is_region(c)]
        self._hops = scene.plan.hops[container]
        self._lanes = [hop for hop in self._hops if _is_between(hop)]

    def enclose(self) -> Interior:
        """The parallel state's box."""
        scene, words = self._scene, self._scene.words[self._container]
        histories = scene.histories(self._container)
        header = scene.header_width(self._container) + PAD_X
        top = words.height + REGION_TOP
        least = scene.roomy(self._container, max(words.width, header), top)
        sizes = {region: scene.size(region) for region in self._regions}
        in_row = self._is_row(list(sizes.values()))
        interior = self._row(sizes, top, least) if in_row else self._column(sizes, top, least)
        self._add_histories(interior, histories)
        lanes = iter(range(len(self._lanes)))
        for hop in self._hops:
            if _is_between(hop):
                piece = self._between(hop, interior, next(lanes))
            elif hop.tail.node == BORDER:
                piece = self._from_border(hop, interior, words.height)
            else:
                piece = self._through(hop, interior)
            interior.pieces.append((hop, piece))
        return interior

    def _is_row(self, sizes: list[Size]) -> bool:
        """Across the flow if wires go through the border, so that ports reach it; else by shape."""
        if any(self._scene.plan.ports[region] for region in self._regions):
            return self._run == "TB"
        row = screen_area(sum(w for w, _ in sizes), max(h for _, h in sizes))
        column = screen_area(max(w for w, _ in sizes), sum(h for _, h in sizes))
        return row <= column

    def _row(self, sizes: dict[int, Size], top: float, least: Size) -> Interior:
        total = sum(width for width, _ in sizes.values())
        height = max(height for _, height in sizes.values())
        height = max(height, least[1] - top)
        extra = max(0.0, least[0] - total) / len(sizes)
        gutter = self._gutter()
        below, beside = (gutter, 0.0) if self._run == "TB" else (0.0, gutter)
        interior = Interior(max(total, least[0]) + beside, top + height + below)
        x = 0.0
        for region, (width, _) in sizes.items():
            interior.corners[state_node(region)] = (x, top)
            interior.sizes[region] = (width + extra, height)
            if x:
                interior.separators[region] = "left"
            x += width + extra
        return interior

    def _column(self, sizes: dict[int, Size], top: float, least: Size) -> Interior:
        width = max(least[0], *(width for width, _ in sizes.values()))
        total = sum(height for _, height in sizes.values())
        extra = max(0.0, least[1] - top - total) / len(sizes)
        gutter = self._gutter()
        below, beside = (gutter, 0.0) if self._run == "TB" else (0.0, gutter)
        interior = Interior(width + beside, max(least[1], top + total) + below)
        y = top
        for region, (_, height) in sizes.items():
            interior.corners[state_node(region)] = (0.0, y)
            interior.sizes[region] = (width, height + extra)
            if y > top:
                interior.separators[region] = "top"
            y += height + extra
        return interior

    def _gutter(self) -> float:
        return LANE * len(self._lanes) + GUTTER_MARGIN if self._lanes else 0.0

    def _add_histories(self, interior: Interior, histories: list[int]) -> None:
        graph, words = self._scene.graph, self._scene.words[self._container]
        marks = MARK * len(signs(graph, graph.states[self._container]))
        x = PAD_X + title_width(words.title) + marks
        y = PAD_Y + (TITLE_LINE - HISTORY_SIZE) / 2
        for history in histories:
            interior.corners[state_node(history)] = (x, y)
            interior.sizes[history] = (HISTORY_SIZE, HISTORY_SIZE)
            x += HISTORY_SIZE + HISTORY_GAP

    # ---------------------------------------------------------------- wires

    def _between(self, hop: Hop, interior: Interior, lane: int) -> list[Point]:
        """Out of a region's far side, along the gutter, and into the other one's far side."""
        start, out = self._port(hop.tail, interior)
        end, into = self._port(hop.head, interior)
        if self._run == "TB":
            y = interior.height - self._gutter() + LANE_START + LANE * lane
            return [start, out, (out[0], y), (into[0], y), into, end]
        x = interior.width - self._gutter() + LANE_START + LANE * lane
        return [start, out, (x, out[1]), (x, into[1]), into, end]

    def _from_border(self, hop: Hop, interior: Interior, header: float) -> list[Point]:
        """From the header's lower edge, or from the left border, into a region."""
        end, into = self._port(hop.head, interior)
        start = (into[0], header) if self._run == "TB" else (0.0, into[1])
        return [start, into, end]

    def _through(self, hop: Hop, interior: Interior) -> list[Point]:
        """Between a region's port and the parallel state's own, which it decides the place of."""
        leaves = hop.head.node in self._ports
        own, regions = (hop.head.node, hop.tail) if leaves else (hop.tail.node, hop.head)
        inner, edge = self._port(regions, interior)
        interior.ports[own] = edge[0] if self._run == "TB" else edge[1]
        border = interior.on_border(own, self._ports[own], self._run)
        return [inner, edge, border] if leaves else [border, edge, inner]

    def _port(self, end: End, interior: Interior) -> tuple[Point, Point]:
        """Where a region's port was laid out, and where it is on the region's enlarged side."""
        region = state_of(end.node)
        assert region is not None
        laid_out = self._scene.interior(region)
        side = self._scene.plan.ports[region][end.port]
        x, y = laid_out.on_border(end.port, side, self._scene.runs[region])
        left, top = interior.corners[end.node]
        width, height = interior.sizes[region]
        inner = (left + x, top + y)
        if side == "source":
            return inner, inner
        return inner, (inner[0], top + height) if self._run == "TB" else (left + width, inner[1])


def _is_between(hop: Hop) -> bool:
    """Whether it leads from one region to another."""
    return bool(hop.tail.port) and bool(hop.head.port)
