"""What the processes of a site tell each other: at once, and with no promise.

What is told while Redis is away is lost. Whoever hears news must get on without: states are looked
up again in time, and what is believed of tokens and machines ends by itself.
"""

import msgspec

InstanceKey = tuple[int, str]


class Present(msgspec.Struct, tag="present", array_like=True):
    """A process has begun to listen: tell it what you want to hear."""

    process: str


class Interest(msgspec.Struct, tag="interest", array_like=True):
    """Instances whose states a process wants to hear of, or no longer."""

    process: str
    begins: bool  # whether this is the beginning of all, and what was said before is void
    added: list[InstanceKey]
    removed: list[InstanceKey]


class Moved(msgspec.Struct, tag="moved", array_like=True):
    """A committed state; without `state` and `context` where they are too large to be sent."""

    machine_id: int
    slug: str
    row_id: int
    version_id: int
    seq: int
    ts: int
    state: str
    context: str


class InstanceStopped(msgspec.Struct, tag="stopped", array_like=True):
    """It is paused or deleted: end its services, wherever they run."""

    machine_id: int
    slug: str
    is_deleted: bool


class InstanceOutdated(msgspec.Struct, tag="outdated", array_like=True):
    """Another version is desired for it, or none any more: its next event needs its row."""

    machine_id: int
    slug: str


class VersionPublished(msgspec.Struct, tag="version", array_like=True):
    machine_id: int


class KeyDeleted(msgspec.Struct, tag="key", array_like=True):
    key_id: str


class TokenRevoked(msgspec.Struct, tag="token", array_like=True):
    pass


Message = (
    Present
    | Interest
    | Moved
    | InstanceStopped
    | InstanceOutdated
    | VersionPublished
    | KeyDeleted
    | TokenRevoked
)
