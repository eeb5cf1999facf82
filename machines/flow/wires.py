"""Right-angled wires for one container. Graphviz has placed boxes and wires in rows; here the ends
of wires are spread over the sides of boxes, every wire that bends gets a track of its own, and the
rows move apart just enough for these tracks.

Places are (u, v): u runs with the flow (down in TB, to the right in LR), v across it.

W1  Through a row a wire runs straight along u, in a gap that no box of the row touches.
W2  Along v a wire runs only in the channel between two rows, on its own track.
W3  Wires on one side of a box end at least END_GAP apart, if the side is long enough.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import combinations, pairwise

# Distances in px.
END_GAP, END_GAP_MIN, TRACK_GAP = 14.0, 8.0, 9.0
CHANNEL = 26.0  # between two rows without tracks
BEFORE_TRACKS, AFTER_TRACKS = 12.0, 18.0  # the arrowhead is after them
TALL = 110.0  # a row with such a box is aligned at its start or end, others in their middle
SLANT = 3.5  # a smaller step across is drawn as a slight slant
STRAIGHT = 0.6  # and a smaller one not at all
TOUCH = 6.0  # lines that are nearer look like one

SWEEPS_MAX = 12

Point = tuple[float, float]
Span = tuple[float, float]


@dataclass
class Node:
    """A box, a port or a dot, by its middle and its size along and across the flow."""

    u: float
    v: float
    along: float
    across: float
    corner: float = 11.0  # no wire ends nearer to a corner
    row: int = 0

    @property
    def span(self) -> Span:
        """Where wires may end on the sides that look along the flow."""
        room = max(0.0, self.across / 2 - self.corner)
        return (self.v - room, self.v + room)


@dataclass
class Line:
    """A wire's way between two nodes, the tail's row before the head's."""

    tail: str
    head: str
    passes: list[float]  # places across in the rows between
    tail_at: float | None = None  # a fixed end, as the distance from the node's middle
    head_at: float | None = None
    weight: int = 1  # of several that want one place on a side, the heaviest gets it
    places: list[float] = field(default_factory=list)  # across, in each row from tail to head
    tracks: dict[int, int] = field(default_factory=dict)  # channel → track

    def at(self, row: int, nodes: dict[str, Node]) -> float:
        return self.places[row - nodes[self.tail].row]

    def shift(self, row: int, distance: float, nodes: dict[str, Node]) -> bool:
        """Move the straight run that passes through a row; False if it is fixed to a node."""
        at = row - nodes[self.tail].row
        first = last = at
        while first > 0 and self.places[first - 1] == self.places[at]:
            first -= 1
        while last < len(self.places) - 1 and self.places[last + 1] == self.places[at]:
            last += 1
        if first == 0 or last == len(self.places) - 1:
            return False
        for index in range(first, last + 1):
            self.places[index] += distance
        return True

    def bends(self, channel: int, nodes: dict[str, Node]) -> Span | None:
        """From where to where across it goes in a channel; None if it is straight there."""
        if not nodes[self.tail].row <= channel < nodes[self.head].row:
            return None
        before, after = self.at(channel, nodes), self.at(channel + 1, nodes)
        return (before, after) if abs(before - after) > SLANT else None


Bend = tuple[Line, Span]


def join_ends(nodes: dict[str, Node], lines: list[Line]) -> None:
    """Choose each line's place in each row, with its ends spread over the sides of boxes.

    Nodes have to know their rows.
    """
    sides: dict[tuple[str, bool], list[Line]] = defaultdict(list)  # True: where lines start
    for line in lines:
        tail, head = nodes[line.tail], nodes[line.head]
        first, last = tail.v + (line.tail_at or 0.0), head.v + (line.head_at or 0.0)
        line.places = [first, *line.passes, last]
        sides[line.tail, True].append(line)
        sides[line.head, False].append(line)
    # Crowded sides first: a wire that is alone on its side then meets them where they are.
    for name, is_tail in sorted(sides, key=lambda side: (-len(sides[side]), side)):
        _spread(nodes[name], sides[name, is_tail], is_tail=is_tail)


def lay_tracks(nodes: dict[str, Node], lines: list[Line]) -> list[list[Point]]:
    """The ways of all lines; sets the nodes' `u` so that there is room for them."""
    channels = range(max(node.row for node in nodes.values()))
    for channel in channels:
        _part_swapped(channel, lines, nodes)
    heights = [_assign_tracks(channel, lines, nodes) for channel in channels]
    ends = _place_rows(nodes, heights, {line.head for line in lines})
    return [_way(line, nodes, ends) for line in lines]


# ------------------------------------------------------------------------------------------ ends


def _spread(node: Node, here: list[Line], *, is_tail: bool) -> None:
    """Give the ends on one side of a node their places, near to where the lines go."""
    end, beyond, far = (0, 1, -1) if is_tail else (-1, -2, 0)
    low, high = node.span

    def is_fixed(line: Line) -> bool:
        return (line.tail_at if is_tail else line.head_at) is not None

    def order(line: Line) -> tuple[float, float, float]:
        wanted = line.places[beyond]
        place = line.places[end] if is_fixed(line) else min(max(wanted, low), high)
        return (place, wanted, line.places[far])

    stretches = [_Stretch(low, high)]
    for line in sorted(here, key=order):
        if is_fixed(line):
            stretches[-1].high = line.places[end] - END_GAP
            stretches.append(_Stretch(line.places[end] + END_GAP, high))
        else:
            stretches[-1].lines.append(line)
    _balance(stretches)
    for stretch in stretches:
        targets = [(line.places[beyond], line.weight) for line in stretch.lines]
        places = spaced(targets, END_GAP, stretch.low, stretch.high)
        for line, place in zip(stretch.lines, places, strict=True):
            line.places[end] = place


@dataclass
class _Stretch:
    """A part of a side between fixed ends, and the lines that end there."""

    low: float
    high: float
    lines: list[Line] = field(default_factory=list)

    def is_overfull(self) -> bool:
        return len(self.lines) > 1 + (self.high - self.low) // END_GAP_MIN


def _balance(stretches: list[_Stretch]) -> None:
    """Where fixed ends leave too little room, lines end beyond them, even if they then cross."""
    for left, right in reversed(list(pairwise(stretches))):
        while right.lines and right.is_overfull():
            left.lines.append(right.lines.pop(0))
    for left, right in pairwise(stretches):
        while left.lines and left.is_overfull():
            right.lines.insert(0, left.lines.pop())


def spaced(targets: list[tuple[float, int]], gap: float, low: float, high: float) -> list[float]:
    """Places at least `gap` apart within `low` and `high`, as near to the targets as can be.

    Minimises the weighted sum of distances: targets that fight are pooled at their median (the
    pool-adjacent-violators algorithm). If there is not enough room, the gap shrinks.
    """
    if not targets:
        return []
    if len(targets) > 1:
        gap = min(gap, max(0.0, high - low) / (len(targets) - 1))
    pools: list[list[tuple[float, int]]] = []
    places: list[float] = []
    for index, (target, weight) in enumerate(targets):
        pool = [(target - index * gap, weight)]
        place = pool[0][0]
        while places and places[-1] > place:
            pool = pools.pop() + pool
            places.pop()
            place = _median(pool)
        pools.append(pool)
        places.append(place)
    highest = high - (len(targets) - 1) * gap
    flat = [
        min(max(place, low), max(low, highest))
        for pool, place in zip(pools, places, strict=True)
        for _ in pool
    ]
    return [place + index * gap for index, place in enumerate(flat)]


def _median(weighted: list[tuple[float, int]]) -> float:
    half = sum(weight for _, weight in weighted) / 2
    ordered = sorted(weighted)
    reached = 0.0
    for value, weight in ordered:
        reached += weight
        if reached >= half:
            return value
    return ordered[-1][0]


def _part_swapped(channel: int, lines: list[Line], nodes: dict[str, Node]) -> None:
    """Move a line aside that would change places with another one: neither could have a track."""
    bends = [(line, bend) for line in lines if (bend := line.bends(channel, nodes)) is not None]
    for (first, (before, after)), (second, (low, high)) in combinations(bends, 2):
        if abs(after - low) >= TOUCH or abs(high - before) >= TOUCH:
            continue
        aside = math.copysign(TOUCH + 1, after - before)
        if not (
            first.shift(channel + 1, aside, nodes)
            or second.shift(channel + 1, -aside, nodes)
            or first.shift(channel, -aside, nodes)
        ):
            second.shift(channel, aside, nodes)


# ------------------------------------------------------------------------------------------ tracks


def _assign_tracks(channel: int, lines: list[Line], nodes: dict[str, Node]) -> float:
    """Give each line that bends between two rows its track; returns the room that they need."""
    bends = [(line, bend) for line in lines if (bend := line.bends(channel, nodes)) is not None]
    tracks: list[tuple[Span, int]] = []
    for line, bend in _in_track_order(bends):
        span = (min(bend) - TOUCH, max(bend) + TOUCH)
        line.tracks[channel] = track = max(
            (1 + other for (low, high), other in tracks if low <= span[1] and span[0] <= high),
            default=0,
        )
        tracks.append(((min(bend), max(bend)), track))
    count = max((track for _, track in tracks), default=-1) + 1
    return max(CHANNEL, BEFORE_TRACKS + TRACK_GAP * (count - 1) + AFTER_TRACKS)


def _in_track_order(bends: list[Bend]) -> list[Bend]:
    """So that they cross little, and never run on top of each other."""
    # Of those that go right the rightmost starts first, of those that go left the leftmost, like
    # the strands of a fan. Then neighbours change places while that saves crossings.
    bends = sorted(bends, key=lambda item: -item[1][0] if item[1][1] > item[1][0] else item[1][0])
    for _ in range(SWEEPS_MAX):
        changed = False
        for i in range(len(bends) - 1):
            upper, lower = bends[i], bends[i + 1]
            if _crossings(lower[1], upper[1]) < _crossings(upper[1], lower[1]):
                bends[i], bends[i + 1] = lower, upper
                changed = True
        if not changed:
            break
    for _ in range(SWEEPS_MAX):
        clash = next(
            (
                (i, j)
                for (i, upper), (j, lower) in combinations(enumerate(bends), 2)
                if _overlap(upper[1], lower[1]) and not _overlap(lower[1], upper[1])
            ),
            None,
        )
        if clash is None:
            break
        bends.insert(clash[0], bends.pop(clash[1]))
    return bends


def _crossings(first: Span, second: Span) -> int:
    """If the first line's track comes before the second one's."""
    return (min(second) <= first[1] <= max(second)) + (min(first) <= second[0] <= max(first))


def _overlap(first: Span, second: Span) -> bool:
    """Then, whether the first goes on at the place across where the second comes from."""
    return abs(first[1] - second[0]) < TOUCH


def _place_rows(nodes: dict[str, Node], heights: list[float], heads: set[str]) -> list[float]:
    """Set the nodes' `u`; returns where each row ends.

    `heads`: nodes that a line leads to. Beside a tall box, others stand next to where they lead.
    """
    rows: dict[int, list[tuple[str, Node]]] = defaultdict(list)
    for name, node in nodes.items():
        rows[node.row].append((name, node))
    ends: list[float] = []
    at = 0.0
    for row in range(len(heights) + 1):
        depth = max((node.along for _, node in rows[row]), default=0.0)
        for name, node in rows[row]:
            if depth <= TALL:
                node.u = at + depth / 2
            elif name in heads:
                node.u = at + node.along / 2
            else:
                node.u = at + depth - node.along / 2
        ends.append(at + depth)
        at = ends[-1] + (heights[row] if row < len(heights) else 0.0)
    return ends


def _way(line: Line, nodes: dict[str, Node], ends: list[float]) -> list[Point]:
    tail, head = nodes[line.tail], nodes[line.head]
    points = [(tail.u + tail.along / 2, line.places[0])]
    for channel, (before, after) in enumerate(pairwise(line.places), start=tail.row):
        if channel in line.tracks:
            u = ends[channel] + BEFORE_TRACKS + TRACK_GAP * line.tracks[channel]
            points += [(u, before), (u, after)]
        elif abs(before - after) > STRAIGHT:
            points += [(ends[channel], before), (ends[channel] + CHANNEL, after)]
    points.append((head.u - head.along / 2, line.places[-1]))
    return points
