"""Positions for a graph. Every container is laid out on its own, innermost first, and then is a box
of fixed size in its parent's layout.

L1  A wire that crosses a border goes through a port: a point that the inner layout fixes and that
    the outer one sees as a cell at the edge of the box. So the pieces of a wire always meet.
L2  A container's layout depends only on what is in it, on the direction it runs in, and on the
    order in which the author wrote it. So small edits move little.
L3  All containers of one depth go to Graphviz together, for all directions that are tried.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from machines.flow import dot
from machines.flow.contents import DOT_SIZE, Contents
from machines.flow.dot import Run
from machines.flow.model import Graph
from machines.flow.plan import INITIAL, Pill, Plan, Wire, state_node
from machines.flow.regions import Regions
from machines.flow.scene import Direction, Drafts, Key, Point, Scene, screen_area
from machines.flow.words import Words

TIME_LIMIT_S = 10.0
MIXED_PENALTY = 1.3  # two directions in one picture have to save this much room


@dataclass(frozen=True)
class Box:
    """A state, placed."""

    words: Words
    x: float
    y: float
    width: float
    height: float
    separator: Literal["left", "top"] | None = None  # of a region, towards the one before it


@dataclass(frozen=True)
class PlacedPill:
    pill: Pill
    x: float
    y: float


@dataclass(frozen=True)
class PlacedWire:
    wire: Wire
    points: list[Point]


@dataclass(frozen=True)
class Layout:
    """Everything that a drawing shows, in px from its top left corner."""

    graph: Graph
    plan: Plan
    direction: Direction
    width: float
    height: float
    boxes: dict[int, Box]  # by state
    pills: dict[str, PlacedPill]  # by the edge's name
    wires: list[PlacedWire]
    dots: dict[int, Point]  # the middles of initial dots, by container


def lay_out(
    graph: Graph, direction: Direction | None = None, *, outer: Run | None = None
) -> Layout:
    """Place everything, in `direction` or else in the one whose picture fits best on a screen.

    `outer` leaves that choice only to what is inside of states. Raises CannotDraw.
    """
    deadline = time.monotonic() + TIME_LIMIT_S
    drafts = Drafts(graph)
    scenes = [Scene(drafts, one) for one in _directions(graph, direction, outer)]
    by_depth: dict[int, list[int]] = defaultdict(list)
    for container in drafts.containers:
        by_depth[len(graph.ancestors[container])].append(container)
    for depth in sorted(by_depth, reverse=True):
        _lay_out_level(scenes, by_depth[depth], deadline)
    best = min(scenes, key=_penalty)
    return _place(best)


def _directions(graph: Graph, direction: Direction | None, outer: Run | None) -> list[Direction]:
    if direction is not None:
        return [direction]
    is_nested = any(graph.children[child] for child in graph.children if child != 0)
    directions: list[Direction] = ["TB", "LR", "TB/LR", "LR/TB"] if is_nested else ["TB", "LR"]
    return [one for one in directions if outer is None or one.startswith(outer)]


def _lay_out_level(scenes: list[Scene], containers: list[int], deadline: float) -> None:
    """Fill in the interiors of containers of one depth, in all scenes."""
    contents: dict[Key, Contents] = {}
    for scene in scenes:
        for container in containers:
            if scene.graph.states[container].type == "compound":
                key = scene.key(container)
                if key not in contents:
                    contents[key] = Contents(scene, container)
    unread = list(contents.values())
    while unread:
        answers = dot.place((one.source() for one in unread), deadline)
        unread = [one for one, places in zip(unread, answers, strict=True) if not one.read(places)]
    for one in contents.values():
        one.finish()
    for scene in scenes:
        for container in containers:
            if scene.has(container):
                continue
            if scene.graph.states[container].type == "compound":
                scene.keep(container, contents[scene.key(container)].enclose(scene))
            else:
                scene.keep(container, Regions(scene, container).enclose())


def _penalty(scene: Scene) -> float:
    """How far one would have to zoom out, and whether one reads in two directions."""
    mixed = MIXED_PENALTY if "/" in scene.direction else 1.0
    return screen_area(*scene.size(0)) * mixed


def _place(scene: Scene) -> Layout:
    """From places in containers to places in the picture."""
    graph, plan = scene.graph, scene.plan
    width, height = scene.size(0)
    boxes = {0: Box(scene.words[0], 0.0, 0.0, width, height)}
    pills: dict[str, PlacedPill] = {}
    dots: dict[int, Point] = {}
    pieces: dict[int, list[tuple[int, list[Point]]]] = defaultdict(list)
    for container in scene.drafts.containers:  # a parent comes before what is in it
        outer, interior = boxes[container], scene.interior(container)
        for child, (w, h) in interior.sizes.items():
            x, y = interior.corners[state_node(child)]
            boxes[child] = Box(
                scene.words[child],
                outer.x + x,
                outer.y + y,
                w,
                h,
                interior.separators.get(child),
            )
        for name in scene.drafts.pills_in[container]:
            x, y = interior.corners[name]
            pills[name] = PlacedPill(plan.pills[name], outer.x + x, outer.y + y)
        if INITIAL in interior.corners:
            x, y = interior.corners[INITIAL]
            dots[container] = (outer.x + x + DOT_SIZE / 2, outer.y + y + DOT_SIZE / 2)
        for hop, points in interior.pieces:
            moved = [(outer.x + x, outer.y + y) for x, y in points]
            pieces[hop.wire].append((hop.order, moved))
    wires = [PlacedWire(wire, _joined(pieces[number])) for number, wire in enumerate(plan.wires)]
    return Layout(graph, plan, scene.direction, width, height, boxes, pills, wires, dots)


def _joined(pieces: list[tuple[int, list[Point]]]) -> list[Point]:
    """One line, without repeated points and points on the way between their neighbours."""
    points: list[Point] = []
    for _, piece in sorted(pieces, key=lambda numbered: numbered[0]):
        for point in piece:
            if points and _is_near(points[-1], point):
                continue
            while len(points) > 1 and _is_between(points[-2], points[-1], point):
                points.pop()
            points.append(point)
    return points


def _is_near(first: Point, second: Point) -> bool:
    return abs(first[0] - second[0]) < 0.5 and abs(first[1] - second[1]) < 0.5


def _is_between(first: Point, middle: Point, last: Point) -> bool:
    return any(
        abs(first[axis] - middle[axis]) < 0.6 and abs(middle[axis] - last[axis]) < 0.6
        for axis in (0, 1)
    )
