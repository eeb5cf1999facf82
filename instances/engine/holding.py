"""How what a paused instance is to get is held, and given back when it resumes.

A held delivery keeps its planned time, moved out of any clock's reach: whatever looks for what is
due leaves it alone, and it costs nothing however long the pause is. What is on its way when the
instance is paused, or is sent to it later, is held when it finds the instance paused.
"""

from enum import IntEnum

PAUSED = 1  # status of an instance
HELD_MS = 1 << 60  # added to the due time of what is held; 36 million years


class Resume(IntEnum):
    """When the timers of a paused instance fire once it runs again; messages keep their time."""

    ORIGINAL = 0  # at their time; what is overdue at once, in order
    KEEP_REMAINING = 1  # later by as long as the pause was
    FIRE_NOW = 2  # all at once, in order

    @property
    def label(self) -> str:
        """As it stands in the API: `keep-remaining`."""
        return self.name.lower().replace("_", "-")


def resume_named(label: str) -> Resume:
    """Raises KeyError for a word that is none."""
    return Resume[label.upper().replace("-", "_")]


def planned_ms(due_at_ms: int) -> int:
    """The time that a delivery was planned for, held or not."""
    return due_at_ms - HELD_MS if due_at_ms >= HELD_MS else due_at_ms
