"""Flow: how statecharts are drawn.

    code → describe → Graph → draw → Drawing

`describe` runs a version's code once, in a sandbox, and reads the machine's definition; its JSON is
stored with the version. `draw` makes the picture, which is stored too. docs/diagrams.md says what a
picture shows, and how a page brings it to life.
"""

from machines.flow.dot import Run
from machines.flow.drawing import Drawing, draw, draw_standalone, drawing_key
from machines.flow.errors import CannotDescribe, CannotDraw, FlowError, TooLargeToDraw
from machines.flow.extraction import Extractor, describe
from machines.flow.model import Graph, active_paths
from machines.flow.scene import Direction

__all__ = [
    "CannotDescribe",
    "CannotDraw",
    "Direction",
    "Drawing",
    "Extractor",
    "FlowError",
    "Graph",
    "Run",
    "TooLargeToDraw",
    "active_paths",
    "describe",
    "draw",
    "draw_standalone",
    "drawing_key",
]
