"""What may go wrong between a bundle and its drawing."""


class FlowError(Exception):
    """There is no diagram, and the message says why."""


class CannotDescribe(FlowError):
    """The definition could not be read from the code."""


class CannotDraw(FlowError):
    """The machine is too large to be drawn in time, or the drawing program is missing."""


class TooLargeToDraw(CannotDraw):
    """Drawing it took longer than it may; it would the next time, too."""
