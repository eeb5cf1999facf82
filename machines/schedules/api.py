"""/api/machines/:m/schedules."""

from typing import ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from authz.permissions import Rule, scope
from machines.access import get_machine
from machines.schedules import service
from machines.schedules.serializers import (
    ChangeSchedule,
    CreateSchedule,
    ScheduleDetails,
    SchedulesJson,
)
from statebacked_site.api import ApiView
from statebacked_site.openapi import operation

# Also for reading: events and contexts may be private.
ALLOWED = scope("instances.write")


class SchedulesView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"GET": ALLOWED, "POST": ALLOWED}

    @operation("List the machine's schedules, the oldest first", {200: SchedulesJson})
    def get(self, request: Request, machine: str) -> Response:
        found = service.schedules_of(get_machine(self.caller, machine)).order_by("id")
        return Response(SchedulesJson({"schedules": found}).data)

    @operation(
        "Create a schedule",
        {201: ScheduleDetails},
        request=CreateSchedule,
        description="Creates an instance or sends an event at the times of a cron line. The"
        " version's `allowWrite` is asked with the authContext `{stateBackedSchedule: {id,"
        " machineName, plannedAt}}`. Runs that were missed are made up for by one.",
    )
    def post(self, request: Request, machine: str) -> Response:
        found = get_machine(self.caller, machine)
        schedule = service.create_schedule(self.caller, found, self.given(CreateSchedule))
        return Response(ScheduleDetails(schedule).data, status=201)


class ScheduleView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"GET": ALLOWED, "PATCH": ALLOWED, "DELETE": ALLOWED}
    http_method_names = ["get", "head", "patch", "delete"]  # noqa: RUF012

    @operation("Get a schedule with its next runs", {200: ScheduleDetails})
    def get(self, request: Request, machine: str, schedule: str) -> Response:
        found = service.get_schedule(get_machine(self.caller, machine), schedule)
        return Response(ScheduleDetails(found).data)

    @operation("Change, pause or resume a schedule", {200: ScheduleDetails}, request=ChangeSchedule)
    def patch(self, request: Request, machine: str, schedule: str) -> Response:
        found = service.get_schedule(get_machine(self.caller, machine), schedule)
        changed = service.change_schedule(found, self.given(ChangeSchedule))
        return Response(ScheduleDetails(changed).data)

    @operation("Delete a schedule", {204: None})
    def delete(self, request: Request, machine: str, schedule: str) -> Response:
        service.get_schedule(get_machine(self.caller, machine), schedule).delete()
        return Response(status=204)
