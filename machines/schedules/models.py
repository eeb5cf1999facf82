"""When something is to happen to a machine's instances, again and again."""

from typing import ClassVar

from django.db import models

from authz.models import User
from machines.models import Machine
from statebacked_site.identifiers import IDENTIFIER_LENGTH_MAX, new_schedule_id


class Schedule(models.Model):
    """Creates an instance, or sends an event to one, at each time of `cron`.

    `next_run` is moved on in the transaction that writes the delivery (engine/scheduling.py), and
    only if nobody else has moved it: that is what makes each run happen once. Times are
    milliseconds since the epoch.
    """

    class Action(models.TextChoices):
        CREATE = "create"
        SEND = "send"

    machine = models.ForeignKey(Machine, on_delete=models.CASCADE, related_name="schedules")
    public_id = models.CharField(
        max_length=IDENTIFIER_LENGTH_MAX, unique=True, default=new_schedule_id
    )
    cron = models.CharField(max_length=100)
    time_zone = models.CharField(max_length=64)
    action = models.CharField(max_length=8, choices=Action.choices)
    slug = models.CharField(max_length=128)  # of the instance; of one to be created, a template
    payload = models.TextField()  # JSON: the event, or the context of the new instance
    next_run = models.BigIntegerField(null=True)  # null: paused
    last_run = models.BigIntegerField(null=True)
    last_problem = models.TextField(default="")  # why the last run did nothing
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True)

    class Meta:
        db_table = "schedule"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["next_run"], name="schedule_due")
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def is_paused(self) -> bool:
        return self.next_run is None
