"""JSON of schedules."""

from typing import Any
from zoneinfo import ZoneInfo

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from machines.schedules.cron import next_runs
from machines.schedules.models import Schedule
from statebacked_site.fields import (
    Flag,
    JsonObject,
    Slug,
    Text,
    Timestamp,
    iso_timestamp,
)
from statebacked_site.json_text import stored_json

NEXT_RUNS = 5


class SlugTemplate(Text):
    """A name, with `{date}`, `{time}`, `{week}` or `{month}` in it."""


class CreateByCron(JsonObject):
    slug = SlugTemplate(
        max_length=128,
        help_text="May contain `{date}`, `{time}`, `{week}` and `{month}`, of the schedule's time"
        " zone. A run whose name is taken does nothing.",
    )
    context = serializers.JSONField(required=False)  # type: ignore[assignment]  # a declared field


class SendByCron(JsonObject):
    slug = Slug()
    event = serializers.JSONField()


class ChangeSchedule(JsonObject):
    cron = Text(
        required=False,
        max_length=200,
        help_text="Five fields: minute, hour, day of the month, month, day of the week.",
    )
    time_zone = Text(required=False, max_length=64, help_text="By default UTC.")
    create = CreateByCron(  # type: ignore[assignment]  # a declared field
        required=False, help_text="Create an instance at each time."
    )
    send = SendByCron(required=False, help_text="Send an event at each time.")
    paused = Flag(required=False)


class CreateSchedule(ChangeSchedule):
    cron = Text(
        max_length=200,
        help_text="Five fields: minute, hour, day of the month, month, day of the week.",
    )


class ScheduleJson(JsonObject):
    id = serializers.CharField(source="public_id")
    cron = serializers.CharField()
    time_zone = serializers.CharField()
    create = serializers.SerializerMethodField()  # type: ignore[assignment]  # a declared field
    send = serializers.SerializerMethodField()
    paused = serializers.BooleanField(source="is_paused")
    next_run = Timestamp(required=False)
    last_run = Timestamp(required=False)
    last_problem = serializers.SerializerMethodField(
        method_name="get_last_problem", help_text="Why the last run did nothing."
    )
    created_at = Timestamp()

    @extend_schema_field(CreateByCron)
    def get_create(self, schedule: Schedule) -> dict[str, Any] | None:
        if schedule.action != Schedule.Action.CREATE:
            return None
        return {"slug": schedule.slug, "context": stored_json(schedule.payload)}

    @extend_schema_field(SendByCron)
    def get_send(self, schedule: Schedule) -> dict[str, Any] | None:
        if schedule.action != Schedule.Action.SEND:
            return None
        return {"slug": schedule.slug, "event": stored_json(schedule.payload)}

    @extend_schema_field(OpenApiTypes.STR)
    def get_last_problem(self, schedule: Schedule) -> str | None:
        return schedule.last_problem or None


class ScheduleDetails(ScheduleJson):
    next_runs = serializers.SerializerMethodField(
        method_name="get_next_runs", help_text="The next five; none while paused."
    )

    def get_next_runs(self, schedule: Schedule) -> list[str]:
        if schedule.next_run is None:
            return []
        zone = ZoneInfo(schedule.time_zone)
        runs = next_runs(schedule.cron, zone, schedule.next_run - 1_000, NEXT_RUNS)
        return [iso_timestamp(run) for run in runs]


class SchedulesJson(JsonObject):
    schedules = ScheduleJson(many=True)
