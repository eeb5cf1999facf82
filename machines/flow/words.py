"""What is written in states and on transitions, and how much room it takes.

Code speaks in mono: events, guards, actions, services. What we say ourselves, and the names of
states, is in sans.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from machines.flow.model import Graph, State, Transition
from machines.flow.text import Style, clean, duration, width, wrap

Role = Literal["title", "event", "words", "code", "keyword", "tags"]

STYLES: dict[Role, Style] = {
    "title": Style("sans", 13, 600),
    "event": Style("mono", 11.5, 500),
    "words": Style("sans", 12, 500),  # an event that we put into words: "after 2 days"
    "code": Style("mono", 11),
    "keyword": Style("sans", 11),
    "tags": Style("sans", 11),
}

# Distances in px.
TITLE_LINE, LINE = 18.0, 16.0
PAD_X, PAD_Y = 14.0, 9.0  # inside a state
PILL_X, PILL_Y = 10.0, 5.0  # inside a pill
ICON = 16.0  # kept for the icon of an event
ENTRY_KEYWORD, PILL_KEYWORD = 44.0, 18.0  # kept for "entry" in a state, for "if" in a pill
RULE = 7.0  # between the title and what is below it
BLOCK_GAP = 4.0  # between pills inside a state
MARK = 20.0  # kept for a sign beside a title
STATE_WRAP, PILL_WRAP = 220.0, 190.0
STATE_WIDTH_MIN = 64.0
HISTORY_SIZE = 28.0

ROWS_MAX = 8
PILL_ACTIONS_MAX = 4
TAG_LINES_MAX = 2


@dataclass(frozen=True)
class Line:
    """One line of text in a box."""

    role: Role
    text: str
    keyword: str = ""  # a small word before it: "entry", "if"
    indent: float = 0.0  # kept for the keyword, also where a line continues the one above


@dataclass(frozen=True)
class Block:
    """What one transition says. Transitions with the same source and targets share a pill."""

    transition: Transition
    icon: str
    lines: list[Line]

    @property
    def width(self) -> float:
        return max(line_width(line) for line in self.lines) + ICON + 2 * PILL_X

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + 2 * PILL_Y


@dataclass(frozen=True)
class Words:
    """What is written in a state's box."""

    title: list[str]
    rows: list[Line]
    blocks: list[Block]  # transitions that stay in the state
    width: float  # of the narrowest box that holds all this
    height: float  # of title, rows and blocks with their distances


def line_width(line: Line) -> float:
    return line.indent + width(line.text, STYLES[line.role])


def title_width(title: Iterable[str]) -> float:
    return max(width(line, STYLES["title"]) for line in title)


def block_of(transition: Transition, to: str = "", icon: str = "") -> Block:
    """`to` names the targets where no wire shows them."""
    lines = _event(transition)
    if transition.is_forbidden:
        lines.append(Line("keyword", "ignored here"))
    elif transition.guard and transition.kind != "always":
        lines += _pill_lines("if", transition.guard)
    elif transition.is_else and transition.kind != "always":
        lines.append(Line("keyword", "else"))
    for action in transition.actions[:PILL_ACTIONS_MAX]:
        lines += _pill_lines("do", action)
    more = len(transition.actions) - PILL_ACTIONS_MAX
    if more > 0:
        lines.append(Line("keyword", f"+ {more} more"))
    if to:
        lines += _pill_lines("to", to)
    return Block(transition, icon or transition.kind, lines)


def _event(transition: Transition) -> list[Line]:
    label = clean(transition.label) if transition.label else ""
    match transition.kind:
        case "event":
            return _wrapped("event", label or "(empty)")
        case "wildcard":
            return _wrapped(*(("words", "any other event") if label == "*" else ("event", label)))
        case "after":
            return _wrapped("words", f"after {duration(label)}")
        case "done" | "error":
            return _wrapped("words", f"{transition.kind} {label}".strip())
        case "snapshot":
            return _wrapped("words", f"update {label}".strip())
        case "default":
            return _wrapped("words", "default")
        case "always":
            if transition.guard:
                return _pill_lines("if", transition.guard)
            return _wrapped("words", "else" if transition.is_else else "always")


def _wrapped(role: Role, text: str) -> list[Line]:
    return [Line(role, line) for line in wrap(text, STYLES[role], PILL_WRAP)]


def _pill_lines(keyword: str, text: str) -> list[Line]:
    lines = wrap(clean(text), STYLES["code"], PILL_WRAP)
    return [
        Line("code", line, "" if position else keyword, PILL_KEYWORD)
        for position, line in enumerate(lines)
    ]


def words_of(graph: Graph, state: State, staying: list[Transition]) -> Words:
    """`staying`: the transitions that are drawn inside the state's box."""
    title = wrap(clean(state.key if state.parent is not None else graph.name), *_TITLE_WRAP)
    rows = _rows(state)
    blocks = [
        block_of(transition, _elsewhere(graph, transition), _staying_icon(transition))
        for transition in staying
    ]
    if state.type == "history":
        return Words(title, [], [], HISTORY_SIZE, HISTORY_SIZE)
    widest = max(
        title_width(title) + MARK * len(signs(graph, state)),
        *(line_width(row) for row in rows),
        *(block.width for block in blocks),
        STATE_WIDTH_MIN - 2 * PAD_X,
    )
    height = 2 * PAD_Y + TITLE_LINE * len(title)
    if rows:
        height += RULE + LINE * len(rows)
    if blocks:
        height += RULE + sum(block.height + BLOCK_GAP for block in blocks) - BLOCK_GAP
    return Words(title, rows, blocks, round(widest + 2 * PAD_X), round(height))


def signs(graph: Graph, state: State) -> list[Literal["parallel", "fold", "unfold"]]:
    """What is drawn beside a state's title."""
    found: list[Literal["parallel", "fold", "unfold"]] = []
    if state.type == "parallel":
        found.append("parallel")
    if state.type == "folded":
        found.append("unfold")
    elif graph.children[state.number] and state.parent is not None:
        found.append("fold")
    return found


_TITLE_WRAP = (STYLES["title"], STATE_WRAP)


def _rows(state: State) -> list[Line]:
    """Entry and exit actions, services and tags."""
    entries = [("entry", action) for action in state.entry]
    entries += [("exit", action) for action in state.exit]
    entries += [("initial", action) for action in state.initial_actions]
    entries += [("invoke", one.src or one.id or "inline") for one in state.invoke]
    hidden = len(entries) - ROWS_MAX
    if hidden > 0:
        entries = entries[: ROWS_MAX - 1]
    rows: list[Line] = []
    previous = ""
    for keyword, text in entries:
        for line in wrap(clean(text), STYLES["code"], STATE_WRAP):
            rows.append(Line("code", line, "" if keyword == previous else keyword, ENTRY_KEYWORD))
            previous = keyword
    if hidden > 0:
        rows.append(Line("keyword", f"+ {hidden + 1} more", "", ENTRY_KEYWORD))
    if state.tags:
        tags = " ".join("#" + clean(tag).replace(" ", "\N{NO-BREAK SPACE}") for tag in state.tags)
        rows += [
            Line("tags", line) for line in wrap(tags, STYLES["tags"], STATE_WRAP, TAG_LINES_MAX)
        ]
    return rows


def _elsewhere(graph: Graph, transition: Transition) -> str:
    return ", ".join(
        graph.paths[target] or graph.name
        for target in transition.targets
        if target != transition.source
    )


def _staying_icon(transition: Transition) -> str:
    """A state that is left and entered again runs its exit and entry actions."""
    is_reentered = transition.targets == [transition.source] and not transition.is_internal
    return "reenter" if is_reentered else ""
