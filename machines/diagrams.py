"""The drawing of a version: made when it is first looked at, and kept.

A version never changes, so its drawing does not, except when the way of drawing does.
"""

from django.utils.safestring import SafeString

from machines.models import MachineVersion


def diagram_of(version: MachineVersion) -> SafeString | None:
    """The SVG of a version, or None if there is none."""
    return None
