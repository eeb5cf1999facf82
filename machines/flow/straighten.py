"""Small moves across the flow that save bends.

Graphviz keeps wires short; that leaves steps of a few px which a reader would see. For each of them
one side is moved to meet the other: a straight run of the wire, with the end that slides along a
box, or with the box and what is straight beyond it. Nothing moves past a neighbour, so the order in
each row stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from machines.flow.wires import END_GAP_MIN, STRAIGHT, Line, Node

REACH = 32.0  # px that something may move
BOX_APART, WIRE_APART = 16.0, 9.0  # px that remain between two boxes, and beside a wire
SWEEPS = 3
GROUP_MAX = 32  # what moves together: ends, passes and boxes


def straighten(nodes: dict[str, Node], lines: list[Line], fixed: set[str]) -> None:
    """Move parts of `lines`, and nodes other than those in `fixed`."""
    rows = _Rows(nodes, lines)
    for _ in range(SWEEPS):
        moved = False
        for line in lines:
            for before, after in list(_steps(line)):
                moved |= _meet(line, before, after, rows, fixed)
        if not moved:
            break


def _steps(line: Line) -> Iterator[tuple[int, int]]:
    """The bends of a line that are small enough to be worth a try."""
    for after, (first, second) in enumerate(pairwise(line.places), start=1):
        if STRAIGHT < abs(first - second) <= REACH:
            yield after - 1, after


def _meet(line: Line, before: int, after: int, rows: _Rows, fixed: set[str]) -> bool:
    """Move what is on one side of a bend to where the other side is, if that saves a bend."""
    step = line.places[after] - line.places[before]
    if abs(step) <= STRAIGHT:
        return False  # an earlier move has straightened it
    for index, distance in ((before, step), (after, -step)):
        group = _Group(rows, fixed, distance)
        if group.add_run(line, index) and group.is_free() and group.saves_bends():
            return True
    return False


class _Rows:
    """What stands in each row, and what ends at each node."""

    def __init__(self, nodes: dict[str, Node], lines: list[Line]) -> None:
        self.nodes = nodes
        self.boxes: dict[int, list[tuple[str, Node]]] = defaultdict(list)
        self.passing: dict[int, list[tuple[Line, int]]] = defaultdict(list)
        self.ends: dict[str, list[tuple[Line, int]]] = defaultdict(list)
        for name, node in nodes.items():
            self.boxes[node.row].append((name, node))
        for line in lines:
            first, last = nodes[line.tail].row, len(line.places) - 1
            self.ends[line.tail].append((line, 0))
            self.ends[line.head].append((line, last))
            for index in range(1, last):
                self.passing[first + index].append((line, index))


@dataclass
class _Group:
    """What moves together, by one distance."""

    rows: _Rows
    fixed: set[str]
    distance: float
    boxes: set[str] = field(default_factory=set)
    items: dict[tuple[int, int], tuple[Line, int]] = field(default_factory=dict)

    def add_run(self, line: Line, index: int) -> bool:
        """Add the straight run around a place of a line; False if something can't move."""
        first, last = index, index
        while first > 0 and line.places[first - 1] == line.places[index]:
            first -= 1
        while last < len(line.places) - 1 and line.places[last + 1] == line.places[index]:
            last += 1
        for at in range(first, last + 1):
            self.items[id(line), at] = (line, at)
        if len(self.items) + len(self.boxes) > GROUP_MAX:
            return False
        at_tail = first > 0 or self._take_end(line, 0, line.tail)
        at_head = last < len(line.places) - 1 or self._take_end(line, last, line.head)
        return at_tail and at_head

    def _take_end(self, line: Line, index: int, name: str) -> bool:
        """The end slides along the side of its box; else the box comes along."""
        if name in self.boxes or self._slides(line, index, name):
            return True
        if name in self.fixed:
            return False
        self.boxes.add(name)
        for other, end in self.rows.ends[name]:
            if (id(other), end) not in self.items and not self.add_run(other, end):
                return False
        return True

    def _slides(self, line: Line, index: int, name: str) -> bool:
        is_tail = index == 0
        if (line.tail_at if is_tail else line.head_at) is not None:
            return False
        place = line.places[index] + self.distance
        low, high = self.rows.nodes[name].span
        if not low <= place <= high:
            return False
        old = line.places[index]
        for other, end in self.rows.ends[name]:
            if other is line or (end == 0) != is_tail:
                continue
            beside = other.places[end]
            stays_in_order = (beside < old) == (beside < place)
            if abs(beside - place) < END_GAP_MIN or not stays_in_order:
                return False
        return True

    def is_free(self) -> bool:
        """Whether nothing else is in the way, or too near."""
        nodes = self.rows.nodes
        for name in self.boxes:
            node = nodes[name]
            if not self._is_row_free(node.row, node.v, node.across / 2, BOX_APART):
                return False
        return all(
            self._is_row_free(nodes[line.tail].row + index, line.places[index], 0.0, WIRE_APART)
            for line, index in self.items.values()
            if 0 < index < len(line.places) - 1
        )

    def _is_row_free(self, row: int, place: float, half: float, beside_box: float) -> bool:
        low = min(place, place + self.distance) - half
        high = max(place, place + self.distance) + half
        for name, node in self.rows.boxes[row]:
            apart = node.across / 2 + beside_box
            if name not in self.boxes and node.v + apart > low and node.v - apart < high:
                return False
        return all(
            (id(line), index) in self.items
            or not low - WIRE_APART < line.places[index] < high + WIRE_APART
            for line, index in self.rows.passing[row]
        )

    def saves_bends(self) -> bool:
        """Move it, and back again if that does not save a bend."""
        touched = {id(line): line for line, _ in self.items.values()}.values()
        bends = sum(map(_bends, touched))
        self._move(self.distance)
        if sum(map(_bends, touched)) < bends:
            return True
        self._move(-self.distance)
        return False

    def _move(self, distance: float) -> None:
        for name in self.boxes:
            self.rows.nodes[name].v += distance
        for line, index in self.items.values():
            line.places[index] += distance


def _bends(line: Line) -> int:
    return sum(abs(first - second) > STRAIGHT for first, second in pairwise(line.places))
