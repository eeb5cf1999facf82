"""Names of instances that are like one that is not there."""

from difflib import get_close_matches

from instances.access import instances_of
from machines.models import Machine

OFFERED_MAX = 5
COMPARED_EACH_MAX = 60  # names before it, after it, and new ones: a million can't be compared
LIKE_MIN = 0.6


def near_names(machine: Machine, asked: str) -> list[str]:
    """The likest first. Three short queries, each by an index."""
    names = instances_of(machine).values_list("slug", flat=True)
    compared = [
        *names.filter(slug__lt=asked).order_by("-slug")[:COMPARED_EACH_MAX],
        *names.filter(slug__gt=asked).order_by("slug")[:COMPARED_EACH_MAX],
        *names.order_by("-pk")[:COMPARED_EACH_MAX],
    ]
    by_lower = {name.lower(): name for name in compared}
    like = get_close_matches(asked.lower(), by_lower, OFFERED_MAX, LIKE_MIN)
    # Who left the beginning away meant one that ends so: `1002` for `order-1002`.
    longer = sorted(name for name in by_lower if asked.lower() in name)
    return [by_lower[name] for name in dict.fromkeys([*like, *longer])][:OFFERED_MAX]
