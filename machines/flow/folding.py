"""Which states to close so that a large machine can be read."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from machines.flow.model import Graph

VISIBLE_MAX = 60
WORTH_A_TRY = 0.7  # of the states that are seen; drawing takes longer than this estimate


def fold_choices(graph: Graph) -> Iterator[list[str]]:
    """Sets of paths to fold, each leaving less to be seen, down to the outermost states alone."""
    paths = readable_folds(graph)
    yield paths
    shown = len(graph.folded(paths).states)
    for depth in range(max(map(len, graph.ancestors.values())), 0, -1):
        coarser = [
            graph.paths[number]
            for number, children in graph.children.items()
            if children and len(graph.ancestors[number]) == depth and not graph.is_region(number)
        ]
        remaining = len(graph.folded(coarser).states)
        if remaining < shown * WORTH_A_TRY:
            shown = remaining
            yield coarser


def readable_folds(graph: Graph, keep_open: Collection[str] = ()) -> list[str]:
    """Paths to fold so that at most VISIBLE_MAX states are seen, if that can be; none if few are.

    The deepest states close first, of one depth those that come last, and regions only if nothing
    else is left: a parallel state should show all that goes on at once, or nothing. Those whose
    path is in `keep_open`, such as the active ones, stay open.
    """
    inside = dict.fromkeys(graph.states, 0)
    for number in graph.states:
        for ancestor in graph.ancestors[number]:
            inside[ancestor] += 1
    hidden = dict.fromkeys(graph.states, 0)  # of the states inside, how many are hidden already
    shown = len(graph.states) - 1
    closed: set[int] = set()
    for number in _deepest_first(graph):
        if shown <= VISIBLE_MAX:
            break
        if graph.paths[number] in keep_open:
            continue
        closed.add(number)
        newly_hidden = inside[number] - hidden[number]
        shown -= newly_hidden
        for ancestor in graph.ancestors[number]:
            hidden[ancestor] += newly_hidden
    return [
        graph.paths[number]
        for number in sorted(closed)
        if not any(ancestor in closed for ancestor in graph.ancestors[number])
    ]


def _deepest_first(graph: Graph) -> list[int]:
    return sorted(
        (number for number in graph.states if number != 0 and graph.children[number]),
        key=lambda number: (graph.is_region(number), -len(graph.ancestors[number]), -number),
    )
