"""The regions of a parallel state, side by side: the lanes of a timeline."""

from typing import NamedTuple

from machines.flow import Graph
from machines.flow.text import clean

LANES_MAX = 6


class Lane(NamedTuple):
    path: str
    name: str


def lanes_of(graph: Graph) -> list[Lane]:
    """The regions of the outermost parallel state, or none; of several, of the first one."""
    parallel = [number for number, state in graph.states.items() if state.type == "parallel"]
    if not parallel:
        return []
    outermost = min(parallel, key=lambda number: (len(graph.ancestors[number]), number))
    return [
        Lane(graph.paths[number], clean(graph.states[number].key))
        for number in graph.children[outermost][:LANES_MAX]
    ]
