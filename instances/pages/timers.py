"""Pending timers of an instance: fire one now, or cancel it."""

import time

from django.db.models import QuerySet

from instances.models import Delivery, Instance
from statebacked_site.errors import NotFound


def fire_now(instance: Instance, timer_id: int) -> None:
    """Make a pending timer due; the pump finds it within a quarter of a second.

    Raises NotFound if it has fired or was cancelled meanwhile.
    """
    now_ms = time.time_ns() // 1_000_000
    # A claimed one waits in the engine's heap already, and is due within a second.
    if not _pending(instance, timer_id).update(due_at=now_ms):
        raise NotFound("This timer has fired or was cancelled meanwhile")


def cancel(instance: Instance, timer_id: int) -> None:
    """Delete a pending timer. One that is being delivered just now finds its row gone."""
    deleted, _ = _pending(instance, timer_id).delete()
    if not deleted:
        raise NotFound("This timer has fired or was cancelled meanwhile")


def _pending(instance: Instance, timer_id: int) -> QuerySet[Delivery]:
    return Delivery.objects.filter(
        pk=timer_id, target_machine_id=instance.machine_id, target_slug=instance.slug
    )
