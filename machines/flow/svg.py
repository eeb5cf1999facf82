"""Our own SVG for a layout.

No colour, no style, no script, no link and no author's markup: classes, data attributes and escaped
text. All of it is themed by flow.css and brought to life by toggling classes; ids and data
attributes say which element is which state and which transition.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape

from machines.flow.layout import Box, Layout, PlacedPill, PlacedWire
from machines.flow.model import NOT_IN_XML, State
from machines.flow.plan import Edge
from machines.flow.scene import Point
from machines.flow.text import REPLACEMENT, clean, is_measured, width
from machines.flow.words import (
    BLOCK_GAP,
    ICON,
    LINE,
    MARK,
    PAD_X,
    PAD_Y,
    PILL_X,
    PILL_Y,
    RULE,
    STYLES,
    TITLE_LINE,
    Block,
    Line,
    Role,
    signs,
)

MARGIN = 14  # px around the picture
PREFIX = "flow"  # of all ids

TEXT_CLASSES: dict[Role, str] = {
    "title": "flow-name",
    "event": "flow-label is-code",
    "words": "flow-label",
    "code": "flow-code",
    "keyword": "flow-keyword",
    "tags": "flow-tags",
}

# 12 × 12, stroked.
ICONS = {
    "event": "M2 6h7.5M6.6 3 9.6 6l-3 3",
    "wildcard": "M6 1.8v8.4M2.4 3.9l7.2 4.2M9.6 3.9 2.4 8.1",
    "always": "M6.8 1.2 3 6.8h3l-.8 4L9 5.2H6z",
    "after": "M6 3.4V6l1.8 1.2M6 1.2a4.8 4.8 0 1 1 0 9.6 4.8 4.8 0 0 1 0-9.6z",
    "done": "M2 6.4 4.7 9 10 3.4",
    "error": "M3 3l6 6M9 3 3 9",
    "snapshot": (
        "M1.2 6c2.2-4 7.4-4 9.6 0-2.2 4-7.4 4-9.6 0zM6 4.7a1.3 1.3 0 1 1 0 2.6 1.3 1.3 0 0 1 0-2.6z"
    ),
    "reenter": "M9.8 6.4A3.8 3.8 0 1 1 8.4 3M8.7.9v2.4H6.3",
    "default": "M2 6h7.5M6.6 3 9.6 6l-3 3",
}
BASELINE = 0.36  # of the font size below the middle of a line

BOX_RADIUS, RING_RADIUS, PILL_RADIUS, CORNER_RADIUS = 8.0, 5.5, 10.0, 8.0
RING = 3.5  # from a final state's border to its inner one
REGION_INSET = 4.0
STACK = 4.0  # how far a folded state's second card looks out
DOT_RADIUS = 4.5
ARROW_LENGTH, ARROW_WIDTH = 8.0, 7.0


def to_svg(layout: Layout, *, fix_widths: bool = False) -> str:
    """The picture. `fix_widths`: every text is as wide as measured, in whatever font."""
    return _Writer(layout, fix_widths).svg()


def attribute(text: str) -> str:
    """A text of any origin as an attribute's value. Unlike `clean`, it keeps names apart."""
    return escape(NOT_IN_XML.sub(REPLACEMENT, text), quote=True)


def number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class _Writer:
    def __init__(self, layout: Layout, fix_widths: bool) -> None:
        self._layout = layout
        self._graph = layout.graph
        self._fix_widths = fix_widths

    def svg(self) -> str:
        return "\n".join([*self._start(), *self._states(), *self._edges(), "</g></svg>"])

    def _start(self) -> Iterator[str]:
        graph, layout = self._graph, self._layout
        states = sum(state.type != "history" for state in graph.states.values()) - 1
        w, h = number(layout.width + 2 * MARGIN), number(layout.height + 2 * MARGIN)
        yield (
            f'<svg class="flow" xmlns="http://www.w3.org/2000/svg" '
            f'viewBox="{-MARGIN} {-MARGIN} {w} {h}" width="{w}" height="{h}" role="img" '
            f'aria-labelledby="{PREFIX}-t {PREFIX}-d" data-direction="{layout.direction}">'
            f'<title id="{PREFIX}-t">{escape(clean(graph.name))}</title>'
            f'<desc id="{PREFIX}-d">Statechart with {states} states and {len(graph.transitions)} '
            "transitions. The state tree says the same in words.</desc>"
        )

    # ---------------------------------------------------------------- states

    def _states(self) -> Iterator[str]:
        yield '<g class="flow-view"><g class="flow-states">'
        for state in self._graph.states.values():
            yield "".join(self._state(state, self._layout.boxes[state.number]))
        yield "</g>"

    def _state(self, state: State, box: Box) -> Iterator[str]:
        path = attribute(self._graph.paths[state.number])
        yield f'<g class="{self._classes(state)}" id="{PREFIX}-s{state.number}" data-node="{path}">'
        if state.description:
            yield f"<title>{escape(clean(state.description))}</title>"
        if state.type == "history":
            yield from self._history(state, box)
        else:
            yield from self._frame(state, box)
            yield from self._header(state, box)
        yield "</g>"

    def _classes(self, state: State) -> str:
        kinds: list[str] = [state.type]
        if state.parent is None:
            kinds.append("root")
        elif self._graph.is_region(state.number):
            kinds.append("region")
        depth = len(self._graph.ancestors[state.number])
        names = " ".join(f"is-{kind}" for kind in kinds)
        return f"flow-state {names} {'is-even' if depth % 2 == 0 else 'is-odd'}"

    def _history(self, state: State, box: Box) -> Iterator[str]:
        x, y = box.x + box.width / 2, box.y + box.height / 2
        sign = "H*" if state.history == "deep" else "H"
        yield f'<circle class="flow-box" cx="{number(x)}" cy="{number(y)}" r="13"/>'
        yield self._text(x, y, Line("keyword", sign), centred=True)

    def _frame(self, state: State, box: Box) -> Iterator[str]:
        if self._graph.is_region(state.number):
            yield _rect(box, "flow-box", REGION_INSET, BOX_RADIUS - 1)
            if box.separator:
                yield self._separator(state, box)
            return
        if state.type == "folded":
            yield _rect(box, "flow-box flow-stack", 0.0, BOX_RADIUS, STACK)
        yield _rect(box, "flow-box", 0.0, BOX_RADIUS)
        if state.type == "final":
            yield _rect(box, "flow-ring", RING, RING_RADIUS)

    def _separator(self, state: State, box: Box) -> str:
        assert state.parent is not None
        outer = self._layout.boxes[state.parent]
        if box.separator == "left":
            end = f"V{number(outer.y + outer.height)}"
        else:
            end = f"H{number(outer.x + outer.width)}"
        return f'<path class="flow-separator" d="M{number(box.x)} {number(box.y)}{end}"/>'

    def _header(self, state: State, box: Box) -> Iterator[str]:
        words = box.words
        is_open = bool(self._graph.children[state.number])
        marks = signs(self._graph, state)
        is_region = self._graph.is_region(state.number)
        if is_open or is_region or words.rows or words.blocks:
            x, y, centred = box.x + PAD_X, box.y + PAD_Y, False
        else:
            lines = TITLE_LINE * len(words.title)
            x, y, centred = (
                box.x + (box.width - MARK * len(marks)) / 2,
                box.y + (box.height - lines) / 2,
                True,
            )
        for line in words.title:
            yield self._text(x, y + TITLE_LINE / 2, Line("title", line), centred=centred)
            y += TITLE_LINE
        title = width(words.title[-1], STYLES["title"])
        at = x + (title / 2 if centred else title) + MARK / 2
        for mark in marks:
            yield _sign(mark, at, y - TITLE_LINE / 2)
            at += MARK
        yield from self._rows(box, y, is_open)
        if is_open and not is_region:
            yield _rule(box.x, box.y + words.height, box.width)

    def _rows(self, box: Box, y: float, is_open: bool) -> Iterator[str]:
        words = box.words
        if words.rows:
            if not is_open:
                yield _rule(box.x + PAD_X, y + RULE / 2, box.width - 2 * PAD_X)
            y += RULE
            for row in words.rows:
                yield from self._keyword_and_text(box.x + PAD_X, y + LINE / 2, row)
                y += LINE
        if words.blocks:
            y += RULE
            room = box.width - 2 * PAD_X
            widest = min(room, max(block.width for block in words.blocks))
            for block in words.blocks:
                yield from self._staying(block, box.x + PAD_X, y, room if not is_open else widest)
                y += block.height + BLOCK_GAP

    def _staying(self, block: Block, x: float, y: float, w: float) -> Iterator[str]:
        """A transition that is drawn inside its state."""
        name = block.transition.number
        yield f'<g class="flow-edge is-inner" id="{PREFIX}-e{name}" data-edge="{name}">'
        yield from self._event(block, x, y, w, (PILL_RADIUS, PILL_RADIUS))
        yield "</g>"

    # ---------------------------------------------------------------- transitions

    def _edges(self) -> Iterator[str]:
        yield '<g class="flow-edges">'
        wires: dict[str, list[PlacedWire]] = defaultdict(list)
        edges: dict[str, Edge] = {}
        for placed in self._layout.wires:
            edge = placed.wire.edge
            edges[edge.name] = edge
            wires[edge.name].append(placed)
        for name, edge in edges.items():
            yield "".join(self._edge(edge, wires[name], self._layout.pills.get(name)))
        yield "</g>"

    def _edge(
        self, edge: Edge, wires: Sequence[PlacedWire], pill: PlacedPill | None
    ) -> Iterator[str]:
        kind = edge.transitions[0].kind if edge.transitions else "initial"
        numbers = " ".join(str(transition.number) for transition in edge.transitions)
        yield (
            f'<g class="flow-edge is-{kind}" id="{PREFIX}-{edge.name}" data-edge="{edge.name[1:]}"'
            f' data-transitions="{numbers}" data-source="{PREFIX}-s{edge.source}"'
            f' data-targets="{" ".join(f"{PREFIX}-s{target}" for target in edge.targets)}">'
        )
        ways = [_way(placed.points, has_head=placed.wire.role != "out") for placed in wires]
        if pill is not None:
            yield f'<path class="flow-hit" d="{"".join(ways)}"/>'
        for placed, way in zip(wires, ways, strict=True):
            yield f'<path class="flow-wire is-{placed.wire.role}" d="{way}"/>'
            if placed.wire.role != "out":
                yield f'<path class="flow-head" d="{_arrow(placed.points)}"/>'
        if edge.source in self._layout.dots and not edge.transitions:
            x, y = self._layout.dots[edge.source]
            yield f'<circle class="flow-dot" cx="{number(x)}" cy="{number(y)}" r="{DOT_RADIUS}"/>'
        if pill is not None:
            yield from self._pill(pill)
        yield "</g>"

    def _pill(self, placed: PlacedPill) -> Iterator[str]:
        blocks = placed.pill.blocks
        y = placed.y
        for position, block in enumerate(blocks):
            top = PILL_RADIUS if position == 0 else 0.0
            bottom = PILL_RADIUS if position == len(blocks) - 1 else 0.0
            yield from self._event(block, placed.x, y, placed.pill.width, (top, bottom))
            y += block.height

    def _event(
        self, block: Block, x: float, y: float, w: float, radii: tuple[float, float]
    ) -> Iterator[str]:
        transition = block.transition
        forbidden = " is-forbidden" if transition.is_forbidden else ""
        yield (
            f'<g class="flow-event is-{transition.kind}{forbidden}"'
            f' data-transition="{transition.number}"'
            f' data-event="{attribute(transition.event_type)}">'
        )
        if transition.description:
            yield f"<title>{escape(clean(transition.description))}</title>"
        yield f'<path class="flow-pill" d="{_rounded(x, y, w, block.height, *radii)}"/>'
        y += PILL_Y + LINE / 2
        icon = f"translate({number(x + PILL_X - 1)} {number(y - 6)})"
        yield f'<path class="flow-icon" transform="{icon}" d="{ICONS[block.icon]}"/>'
        for line in block.lines:
            yield from self._keyword_and_text(x + PILL_X + ICON, y, line)
            y += LINE
        yield "</g>"

    # ---------------------------------------------------------------- text

    def _keyword_and_text(self, x: float, y: float, line: Line) -> Iterator[str]:
        if line.keyword:
            yield self._text(x, y, Line("keyword", line.keyword))
        yield self._text(x + line.indent, y, line)

    def _text(self, x: float, y: float, line: Line, *, centred: bool = False) -> str:
        """A line of text whose middle is at `y`."""
        style = STYLES[line.role]
        anchor = ' text-anchor="middle"' if centred else ""
        fixed = ""
        if self._fix_widths or not is_measured(line.text, style):
            length = number(width(line.text, style))
            fixed = f' textLength="{length}" lengthAdjust="spacingAndGlyphs"'
        return (
            f'<text class="{TEXT_CLASSES[line.role]}" x="{number(x)}"'
            f' y="{number(y + BASELINE * style.size)}"{anchor}{fixed}>{escape(line.text)}</text>'
        )


def _rect(box: Box, css_class: str, inset: float, radius: float, shift: float = 0.0) -> str:
    return (
        f'<rect class="{css_class}" x="{number(box.x + inset + shift)}"'
        f' y="{number(box.y + inset + shift)}" width="{number(box.width - 2 * inset)}"'
        f' height="{number(box.height - 2 * inset)}" rx="{number(radius)}"/>'
    )


def _rule(x: float, y: float, length: float) -> str:
    return f'<path class="flow-rule" d="M{number(x)} {number(y)}h{number(length)}"/>'


def _sign(mark: str, x: float, y: float) -> str:
    """A sign beside a title, around its middle; those for folding can be clicked."""
    if mark == "parallel":
        return f'<path class="flow-sign" d="M{number(x - 2)} {number(y - 4.5)}v9m4 -9v9"/>'
    shape = f"M{number(x - 4)} {number(y)}h8" + ("m-4 -4v8" if mark == "unfold" else "")
    return (
        f'<g class="flow-fold"><rect x="{number(x - 9)}" y="{number(y - 9)}" width="18"'
        f' height="18" rx="4"/><path class="flow-sign" d="{shape}"/></g>'
    )


def _rounded(x: float, y: float, w: float, h: float, top: float, bottom: float) -> str:
    top, bottom = min(top, h / 2), min(bottom, h / 2)
    corner = "a{0} {0} 0 0 1 {1} {2}"

    def arc(radius: float, dx: int, dy: int) -> str:
        if not radius:
            return ""
        return corner.format(number(radius), number(dx * radius), number(dy * radius))

    return (
        f"M{number(x + top)} {number(y)}h{number(w - 2 * top)}{arc(top, 1, 1)}"
        f"v{number(h - top - bottom)}{arc(bottom, -1, 1)}h{number(2 * bottom - w)}"
        f"{arc(bottom, -1, -1)}v{number(top + bottom - h)}{arc(top, 1, -1)}z"
    )


def _way(points: Sequence[Point], *, has_head: bool) -> str:
    """Straight lines with rounded corners; it ends inside the arrowhead, if it has one."""
    points = list(points)
    if has_head:
        points[-1] = _towards(points[-1], points[-2], ARROW_LENGTH / 2)
    out = [f"M{_xy(points[0])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(CORNER_RADIUS, math.dist(before, corner) / 2, math.dist(corner, after) / 2)
        start, end = _towards(corner, before, radius), _towards(corner, after, radius)
        out.append(f"L{_xy(start)}Q{_xy(corner)} {_xy(end)}")
    return "".join(out) + f"L{_xy(points[-1])}"


def _arrow(points: Sequence[Point]) -> str:
    """A head whose tip is where the line ends."""
    tip = points[-1]
    base = _towards(tip, points[-2], ARROW_LENGTH)
    notch = _towards(tip, points[-2], ARROW_LENGTH * 0.72)
    half = ARROW_WIDTH / 2 / ARROW_LENGTH
    dx, dy = (tip[0] - base[0]) * half, (tip[1] - base[1]) * half
    left, right = (base[0] - dy, base[1] + dx), (base[0] + dy, base[1] - dx)
    return f"M{_xy(left)}L{_xy(tip)}L{_xy(right)}L{_xy(notch)}z"


def _towards(start: Point, end: Point, distance: float) -> Point:
    length = math.dist(start, end) or 1.0
    share = distance / length
    return (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)


def _xy(point: Point) -> str:
    return f"{number(point[0])} {number(point[1])}"
