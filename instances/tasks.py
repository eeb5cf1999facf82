"""What workers do for the others, by Celery."""

from celery import shared_task

from instances.engine import door

DELIVER = "instances.deliver"


@shared_task(name=DELIVER)  # type: ignore[untyped-decorator]
def deliver(delivery_ids: list[int]) -> int:
    """Have this worker's engine bring claimed deliveries to their instances, each at its time.

    Returns how many it has taken on. Running it twice, late or not at all does no harm: the rows
    are the truth, and those whose claim has ended meanwhile are somebody else's.
    """
    return door.deliver(delivery_ids)
