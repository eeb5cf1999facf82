"""Reads a drawn SVG back, and says what is wrong with it.

Nothing of the layout's own data is used: boxes, wires and texts are what the markup says, and texts
are as wide as the fonts make them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from machines.flow.model import Graph
from tests.machines.flow.fonts import ASCENT, DESCENT, text_width

SVG = "{http://www.w3.org/2000/svg}"
Point = tuple[float, float]

TOUCH = 1.0  # px: what overlaps less does not overlap
SLANT = 4.0
WIRES_APART = 2.0
MEETS = 2.5  # how far a wire's end may be from what it ends at

# Class → how flow.css sets its text: face, size, weight. test_styles compares.
STYLES = {
    "flow-name": ("sans", 13, 600),
    "flow-label": ("sans", 12, 500),
    "flow-label is-code": ("mono", 11.5, 500),
    "flow-code": ("mono", 11, 400),
    "flow-keyword": ("sans", 11, 400),
    "flow-tags": ("sans", 11, 400),
}

TAGS = frozenset("svg title desc path g rect text circle".split())
ATTRIBUTES = frozenset(
    "aria-labelledby class cx cy d data-direction data-edge data-event data-node data-source"
    " data-targets data-transition data-transitions height id lengthAdjust r role rx"
    " text-anchor textLength transform viewBox width x y".split()
)


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right - TOUCH
            and other.left < self.right - TOUCH
            and self.top < other.bottom - TOUCH
            and other.top < self.bottom - TOUCH
        )

    def holds(self, other: Box) -> bool:
        return (
            self.left <= other.left + TOUCH
            and self.top <= other.top + TOUCH
            and self.right >= other.right - TOUCH
            and self.bottom >= other.bottom - TOUCH
        )

    def has_on_border(self, point: Point) -> bool:
        x, y = point
        inside_x = self.left - MEETS <= x <= self.right + MEETS
        inside_y = self.top - MEETS <= y <= self.bottom + MEETS
        on_x = min(abs(x - self.left), abs(x - self.right)) <= MEETS
        on_y = min(abs(y - self.top), abs(y - self.bottom)) <= MEETS
        return (on_x and inside_y) or (on_y and inside_x)

    def is_crossed_by(self, start: Point, end: Point) -> bool:
        xs, ys = sorted((start[0], end[0])), sorted((start[1], end[1]))
        return (
            xs[0] < self.right - TOUCH
            and xs[1] > self.left + TOUCH
            and ys[0] < self.bottom - TOUCH
            and ys[1] > self.top + TOUCH
        )


@dataclass
class DrawnState:
    id: str
    classes: set[str]
    box: Box
    header: float | None = None  # where the header ends below, if it has a rule across
    texts: list[tuple[str, Box]] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        return bool(self.classes & {"is-compound", "is-parallel"})


@dataclass
class DrawnEdge:
    id: str
    source: str
    targets: list[str]
    outs: list[list[Point]]
    ins: list[list[Point]]  # the last point is the arrow's tip
    pill: Box | None


@dataclass
class Picture:
    states: dict[str, DrawnState] = field(default_factory=dict)
    edges: dict[str, DrawnEdge] = field(default_factory=dict)
    pills: list[tuple[str, Box]] = field(default_factory=list)  # of transitions, by element id
    texts: list[tuple[str, Box, Box]] = field(default_factory=list)  # text, place, what holds it
    transitions: Counter[int] = field(default_factory=Counter)
    parents: dict[str, str] = field(default_factory=dict)


def read(svg: str, graph: Graph) -> Picture:
    picture = Picture()
    root = ElementTree.fromstring(svg)
    for element in root.iter(f"{SVG}g"):
        css = element.get("class", "").split()
        if "flow-state" in css:
            _read_state(element, picture)
        elif "flow-edge" in css and "is-inner" not in css:
            _read_edge(element, picture)
        if "flow-event" in css:
            picture.transitions[int(element.get("data-transition", ""))] += 1
    for state in graph.states.values():
        if state.parent is not None:
            picture.parents[f"flow-s{state.number}"] = f"flow-s{state.parent}"
    return picture


def problems(svg: str, graph: Graph) -> Counter[str]:
    """What is wrong, and how often; empty if nothing is."""
    picture = read(svg, graph)
    found: Counter[str] = Counter(_foreign(svg))
    for check in (_texts, _boxes, _wires_and_boxes, _wires_and_texts, _wires_on_wires):
        found.update(check(picture))
    found.update(_traces(picture, graph))
    return found


# ------------------------------------------------------------------------------------------ reading


def _read_state(element: Element, picture: Picture) -> None:
    boxes = [one for one in element if "flow-box" in one.get("class", "").split()]
    state = DrawnState(
        element.get("id", ""), set(element.get("class", "").split()), _shape(boxes[-1])
    )
    if "is-region" in state.classes:  # it is drawn a little smaller than it is
        b = state.box
        state.box = Box(b.left - 4, b.top - 4, b.right + 4, b.bottom + 4)
    picture.states[state.id] = state
    for child in element:
        if child.tag == f"{SVG}text":
            place = _text_box(child)
            if place is not None:
                state.texts.append((child.text or "", place))
                picture.texts.append((child.text or "", place, state.box))
        elif child.tag == f"{SVG}g" and "flow-edge" in child.get("class", ""):
            for event in child:
                _read_event(event, picture)


def _read_edge(element: Element, picture: Picture) -> None:
    outs: list[list[Point]] = []
    ins: list[list[Point]] = []
    pieces: list[Box] = []
    for child in element:
        css = child.get("class", "").split()
        if "flow-wire" in css:
            (outs if "is-out" in css else ins).append(_points(child.get("d", "")))
        elif "flow-head" in css:
            ins[-1][-1] = _points(child.get("d", ""))[1]
        elif "flow-event" in css:
            pieces.append(_read_event(child, picture))
    pill = None
    if pieces:
        pill = Box(
            min(p.left for p in pieces),
            min(p.top for p in pieces),
            max(p.right for p in pieces),
            max(p.bottom for p in pieces),
        )
    edge = DrawnEdge(
        element.get("id", ""),
        element.get("data-source", ""),
        element.get("data-targets", "").split(),
        outs,
        ins,
        pill,
    )
    picture.edges[edge.id] = edge


def _read_event(element: Element, picture: Picture) -> Box:
    [pill] = [one for one in element if one.get("class") == "flow-pill"]
    box = _shape(pill)
    picture.pills.append((element.get("data-transition", ""), box))
    for text in element.iter(f"{SVG}text"):
        place = _text_box(text)
        if place is not None:
            picture.texts.append((text.text or "", place, box))
    return box


def _shape(element: Element) -> Box:
    if element.tag == f"{SVG}rect":
        x, y = float(element.get("x", "")), float(element.get("y", ""))
        return Box(x, y, x + float(element.get("width", "")), y + float(element.get("height", "")))
    if element.tag == f"{SVG}circle":
        x, y, r = (float(element.get(name, "")) for name in ("cx", "cy", "r"))
        return Box(x - r, y - r, x + r, y + r)
    points = list(_absolute(element.get("d", "")))
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return Box(min(xs), min(ys), max(xs), max(ys))


_COMMAND = re.compile(r"([a-zA-Z])([^a-zA-Z]*)")


def _absolute(path: str) -> Iterator[Point]:
    """The points of a pill's path: lines and arcs, relative ones too."""
    x = y = 0.0
    for command, rest in _COMMAND.findall(path):
        values = [float(value) for value in rest.split()]
        match command:
            case "M":
                x, y = values
            case "h":
                x += values[0]
            case "v":
                y += values[0]
            case "a":
                x, y = x + values[-2], y + values[-1]
            case "z":
                return
            case _:
                raise AssertionError(f"unknown command {command}")
        yield x, y


def _points(path: str) -> list[Point]:
    """The corners of a wire: of a rounded corner the point that the curve goes around."""
    points: list[Point] = []
    for command, rest in _COMMAND.findall(path):
        values = [float(value) for value in rest.split()]
        if command in "ML":
            points.append((values[0], values[1]))
        elif command == "Q":
            points[-1] = (values[0], values[1])
    return points


def _text_box(element: Element) -> Box | None:
    face, size, weight = STYLES[element.get("class", "")]
    width = element.get("textLength")
    length = float(width) if width else text_width(element.text or "", face, size, weight)
    assert length is not None, f"a text of unknown width: {element.text!r}"
    x, y = float(element.get("x", "")), float(element.get("y", ""))
    if element.get("text-anchor") == "middle":
        x -= length / 2
    return Box(x, y - ASCENT * size, x + length, y + DESCENT * size)


# ------------------------------------------------------------------------------------------ checks


def _foreign(svg: str) -> Iterator[str]:
    """Tags and attributes that we never write: an author's text has become markup."""
    for element in ElementTree.fromstring(svg).iter():
        tag = element.tag.removeprefix(SVG)
        if tag not in TAGS:
            yield f"foreign tag {tag}"
        for name in element.attrib:
            if name not in ATTRIBUTES:
                yield f"foreign attribute {name}"


def _texts(picture: Picture) -> Iterator[str]:
    for (_, first, _), (_, second, _) in combinations(picture.texts, 2):
        if first.overlaps(second):
            yield "text over text"
    for _, place, holder in picture.texts:
        if not holder.holds(place):
            yield "text sticks out"


def _boxes(picture: Picture) -> Iterator[str]:
    solid = [s.box for s in picture.states.values() if not s.is_open]
    outer_pills = [edge.pill for edge in picture.edges.values() if edge.pill is not None]
    for first, second in combinations(solid + outer_pills, 2):
        if first.overlaps(second):
            yield "box over box"
    for child, parent in picture.parents.items():
        if child in picture.states and not picture.states[parent].box.holds(
            picture.states[child].box
        ):
            yield "child outside of its parent"


def _segments(edge: DrawnEdge) -> Iterator[tuple[Point, Point]]:
    for wire in (*edge.outs, *edge.ins):
        yield from pairwise(wire)


def _wires_and_boxes(picture: Picture) -> Iterator[str]:
    solid = [(s.id, s.box) for s in picture.states.values() if not s.is_open]
    solid += [(e.id, e.pill) for e in picture.edges.values() if e.pill is not None]
    for edge in picture.edges.values():
        own = {edge.id, edge.source, *edge.targets}
        for start, end in _segments(edge):
            if abs(start[0] - end[0]) > SLANT and abs(start[1] - end[1]) > SLANT:
                yield "slanted wire"
            for name, box in solid:
                if name not in own and box.is_crossed_by(start, end):
                    yield "wire through a box"


def _wires_and_texts(picture: Picture) -> Iterator[str]:
    for edge in picture.edges.values():
        for start, end in _segments(edge):
            for _, place, _ in picture.texts:
                if place.is_crossed_by(start, end):
                    yield "wire through a text"


def _wires_on_wires(picture: Picture) -> Iterator[str]:
    """Of two edges; pieces of one edge may share a way, as a fork does."""
    tracks: dict[tuple[int, int], list[tuple[str, float, float, float]]] = defaultdict(list)
    for edge in picture.edges.values():
        for start, end in _segments(edge):
            for axis in (0, 1):
                if abs(start[axis] - end[axis]) < 0.5:
                    low, high = sorted((start[1 - axis], end[1 - axis]))
                    at = start[axis]
                    tracks[axis, round(at / 8)].append((edge.id, at, low, high))
    seen = set()
    for (axis, bucket), here in tracks.items():
        near = here + tracks.get((axis, bucket + 1), [])
        for first, second in combinations(near, 2):
            if first[0] != second[0] and abs(first[1] - second[1]) < WIRES_APART:
                shared = min(first[3], second[3]) - max(first[2], second[2])
                if shared > 6 and (axis, first, second) not in seen:
                    seen.add((axis, first, second))
                    yield "wire on wire"


def _traces(picture: Picture, graph: Graph) -> Iterator[str]:
    """Whether one can follow every transition from its source through its pill to its targets."""
    drawn = {t.number for t in graph.transitions if t.kind != "default"}
    for number in drawn:
        if picture.transitions[number] != 1:
            yield f"transition drawn {picture.transitions[number]} times"
    yield from ("transition of another graph" for n in picture.transitions if n not in drawn)
    for edge in picture.edges.values():
        source = picture.states[edge.source]
        if edge.pill is not None:
            yield from _starts(edge, source)
        if len(edge.ins) != len(edge.targets):
            yield "as many arrows as targets are missing"
        for wire, target in zip(edge.ins, edge.targets, strict=False):
            if edge.pill is not None and not edge.pill.has_on_border(wire[0]):
                yield "wire does not start at its pill"
            if not picture.states[target].box.has_on_border(wire[-1]):
                yield "arrow does not end at its target"


def _starts(edge: DrawnEdge, source: DrawnState) -> Iterator[str]:
    if len(edge.outs) != 1:
        yield "not one wire out of the source"
        return
    [wire] = edge.outs
    # From inside, a wire may also start below the header of its source.
    below_header = source.is_open and source.box.left <= wire[0][0] <= source.box.right
    if not source.box.has_on_border(wire[0]) and not below_header:
        yield "wire does not start at its source"
    assert edge.pill is not None
    if not edge.pill.has_on_border(wire[-1]):
        yield "wire does not end at its pill"


def summary(found: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in found:
        total += one
    return total
