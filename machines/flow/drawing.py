"""What is stored with a version: its picture, and what goes with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec

from machines.flow import dot
from machines.flow.dot import Run
from machines.flow.errors import CannotDraw
from machines.flow.folding import fold_choices
from machines.flow.layout import Layout, lay_out
from machines.flow.mermaid import to_mermaid
from machines.flow.model import Graph
from machines.flow.scene import Direction, screen_area
from machines.flow.standalone import Theme, to_standalone
from machines.flow.svg import to_svg
from machines.flow.tree import to_tree

# How high a picture may be, in px, or how wide as a screen of that height. Fitted into a panel,
# names can then still be read, or made out where everything is shown.
FOLDED_SIDE_MAX, UNFOLDED_SIDE_MAX = 1800.0, 2400.0


class Drawing(msgspec.Struct, frozen=True):
    """One picture of a machine, with a choice of folded states."""

    svg: str  # themed by flow.css
    tree: str  # HTML: its twin, always of the whole machine
    mermaid: str  # of the whole machine, too
    width: int
    height: int
    direction: Direction
    folded: list[str]  # paths
    layout_version: str  # of the code and the program that have drawn it


def draw(
    graph: Graph,
    *,
    folded: Iterable[str] | None = None,
    direction: Direction | None = None,
    outer: Run | None = None,
) -> Drawing:
    """Draw a machine. Takes about 2 ms of CPU per state; what it returns is meant to be stored.

    `folded`: paths of states to close; None closes what makes a large machine readable.
    `direction`: that of the version before keeps the picture familiar; None takes the best.
    `outer`: only the direction outside of nested states is given: that of the picture in which a
    reader opens or closes a state. Raises CannotDraw.
    """
    choices = fold_choices(graph) if folded is None else [sorted(set(folded))]
    paths, layout = _readable(graph, choices, direction, outer)
    return Drawing(
        svg=to_svg(layout),
        tree=to_tree(graph),
        mermaid=to_mermaid(graph),
        width=round(layout.width),
        height=round(layout.height),
        direction=layout.direction,
        folded=paths,
        layout_version=layout_version(),
    )


def _readable(
    graph: Graph, choices: Iterable[list[str]], direction: Direction | None, outer: Run | None
) -> tuple[list[str], Layout]:
    """The first choice of folds whose picture is small enough, or else the last."""
    found: tuple[list[str], Layout] | None = None
    problem = CannotDraw("there is nothing to draw")
    for paths in choices:
        try:
            layout = lay_out(graph.folded(paths), direction, outer=outer)
        except CannotDraw as exc:
            problem = exc  # with more states closed it may do
            continue
        found = (paths, layout)
        side_max = FOLDED_SIDE_MAX if paths else UNFOLDED_SIDE_MAX
        if screen_area(layout.width, layout.height) <= side_max**2:
            break
    if found is None:
        raise problem
    return found


def draw_standalone(
    graph: Graph,
    theme: Theme = "light",
    *,
    folded: Iterable[str] = (),
    direction: Direction | None = None,
) -> str:
    """A picture as a file: an SVG with its colours in it. Raises CannotDraw."""
    layout = lay_out(graph.folded(folded), direction)
    return to_standalone(to_svg(layout, fix_widths=True), theme)


@cache
def layout_version() -> str:
    """Changes whenever the same graph could be drawn in another way. Raises CannotDraw."""
    digest = hashlib.sha256()
    directory = Path(__file__).parent
    for path in sorted([*directory.glob("*.py"), *directory.glob("*.json")]):
        digest.update(path.read_bytes())
    return f"{digest.hexdigest()[:12]} {dot.binary_version()}"


def drawing_key(
    definition: bytes,
    folded: Iterable[str] | None = None,
    direction: Direction | None = None,
    outer: Run | None = None,
) -> str:
    """Under what to store a drawing of `Graph.encode()`: another key, another picture."""
    digest = hashlib.sha256(definition)
    folds = None if folded is None else sorted(set(folded))
    choice = [folds, direction, outer, layout_version()]
    digest.update(msgspec.json.encode(choice))
    return digest.hexdigest()
