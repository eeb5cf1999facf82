"""/api/machines/:m/i and /api/logs.

Creating an instance, reading its state and sending it an event are answered by the event path
(instances/lean.py) before a request reaches Django; their views stand here for the test client and
for the description of the API.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response

from authz.permissions import Rule, scope
from instances.access import get_instance, instances_of
from instances.engine.holding import Resume, resume_named
from instances.errors import InstanceNotFound
from instances.logs import LogQuery, read_logs
from instances.models import Instance, Transition
from instances.serializers import (
    AdminStateJson,
    DeleteInstance,
    InstanceJson,
    InstancesPage,
    LogsPage,
    SendEvent,
    SetStatus,
    SetVersion,
    StateJson,
    TransitionJson,
    TransitionsPage,
    UpgradeInstances,
    UpgradesJson,
)
from instances.upgrading import LOOKED_AT_MAX, set_desired_version, set_desired_versions
from machines.access import get_machine, get_version, version_of
from machines.confirmation import check_confirmation
from statebacked_site.api import ApiView
from statebacked_site.errors import InvalidParameter
from statebacked_site.identifiers import SLUG
from statebacked_site.openapi import CURSOR, operation
from statebacked_site.paging import cursor_of, key_of, page_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class InstancesView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"GET": scope("instances.read")}

    @operation("List the machine's instances", {200: InstancesPage}, parameters=[CURSOR])
    def get(self, request: Request, machine: str) -> Response:
        instances = instances_of(get_machine(self.caller, machine))
        # Their data may be 400 kB each, and is not in the list.
        light = instances.select_related("version").defer("state", "extra", "context")
        page = page_of(light, "slug", request.query_params.get("cursor"))
        return Response(page.body("instances", lambda instance: InstanceJson(instance).data))


class InstanceView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {
        "GET": scope("state.read"),
        "DELETE": scope("instances.admin"),
    }

    @operation(
        "Read an instance's state",
        {200: StateJson},
        description="The version's `allowRead` decides whether it may be read.",
    )
    def get(self, request: Request, machine: str, instance: str) -> HttpResponse:
        from instances import lean

        return lean.respond(request._request, operation="read", machine=machine, instance=instance)

    @operation("Delete an instance with its history", {204: None}, request=DeleteInstance)
    def delete(self, request: Request, machine: str, instance: str) -> Response:
        from instances.engine import door

        found = get_instance(self.caller, machine, instance)
        given = self.given(DeleteInstance)
        check_confirmation(
            confirmed=given["danger_data_will_be_deleted_forever"],
            given_hmac=given["hmac_sha256_of_machine_instance_name_with_machine_name_key"],
            machine_slug=machine,
            name=instance,
            parameter="hmacSha256OfMachineInstanceNameWithMachineNameKey",
        )
        if not door.delete_instance(found.pk):
            raise InstanceNotFound("The instance was deleted meanwhile")
        return Response(status=204)


class InstanceAdminView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"GET": scope("instances.admin")}

    @operation(
        "Read all of an instance",
        {200: AdminStateJson},
        description="The whole context, private parts included; no authorizer is asked.",
    )
    def get(self, request: Request, machine: str, instance: str) -> Response:
        return Response(AdminStateJson(get_instance(self.caller, machine, instance)).data)


class EventsView(ApiView):
    of_event_path: ClassVar[frozenset[str]] = frozenset({"POST"})
    rules: ClassVar[dict[str, Rule]] = {
        "GET": scope("instances.admin"),
        "POST": scope("events.write", "instances.write"),
    }

    @operation(
        "List an instance's transitions, newest first", {200: TransitionsPage}, parameters=[CURSOR]
    )
    def get(self, request: Request, machine: str, instance: str) -> Response:
        found = get_instance(self.caller, machine, instance)
        transitions = Transition.objects.filter(instance_id=found.pk).only(
            "instance_id", "seq", "kind", "event", "state", "created_at"
        )
        page = page_of(transitions, "-seq", request.query_params.get("cursor"))
        return Response(
            page.body("transitions", lambda transition: TransitionJson(transition).data)
        )

    @operation(
        "Send an event to an instance",
        {200: StateJson},
        request=SendEvent,
        parameters=[
            OpenApiParameter(
                "explain",
                OpenApiTypes.BOOL,
                description="With `1`, the answer has an `explanation`: what the event did, or why"
                " it did nothing or was refused. Needs the scope `instances.admin`.",
            )
        ],
        description="Answers the state in which the instance settles. The version's `allowWrite`"
        " decides whether it may be sent.",
    )
    def post(self, request: Request, machine: str, instance: str) -> HttpResponse:
        from instances import lean
        from instances.explained import send_explained

        if request.query_params.get("explain", "") not in ("", "0", "false"):
            return send_explained(request._request, self.caller, machine, instance)
        return lean.respond(request._request, operation="send", machine=machine, instance=instance)


class StatusView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"PUT": scope("instances.admin")}

    @operation(
        "Pause or resume an instance",
        {204: None},
        request=SetStatus,
        description="A paused instance answers every event with 409 `invalid-state`. Its timers and"
        " messages are held until it resumes; messages then come at once and in order.",
    )
    def put(self, request: Request, machine: str, instance: str) -> Response:
        from instances.engine import door

        found = get_instance(self.caller, machine, instance)
        given = self.given(SetStatus)
        status = Instance.Status[given["status"].upper()]
        timers = resume_named(given.get("timers", Resume.ORIGINAL.label))
        if not door.set_status(found.pk, status, timers):
            raise InstanceNotFound("The instance was deleted meanwhile")
        return Response(status=204)


class DesiredVersionView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"PUT": scope("instances.write")}

    @operation(
        "Set an instance's desired version",
        {201: None},
        request=SetVersion,
        description="The instance upgrades right before the next event that finds it settled, by"
        " the migrations that lead to that version; without such it is a 400 `no-migration-path`."
        " The version that it has already takes an earlier wish back.",
    )
    def put(self, request: Request, machine: str, instance: str) -> Response:
        found = get_instance(self.caller, machine, instance)
        wanted = self.given(SetVersion)["target_machine_version_id"]
        version = version_of(found.machine, wanted, "targetMachineVersionId")
        set_desired_version(found, version)
        return Response(status=201)


class UpgradesView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"POST": scope("instances.admin")}

    @operation(
        "Set the desired version of many instances",
        {200: UpgradesJson},
        request=UpgradeInstances,
        description=f"Looks at up to {LOOKED_AT_MAX:,} of the machine's instances. While there are"
        " more, the answer has a `cursor`: send the same request with it. Instances that are"
        " final keep their version.",
    )
    def post(self, request: Request, machine: str) -> Response:
        found = get_machine(self.caller, machine)
        given = self.given(UpgradeInstances)
        from_version, cursor = given.get("from_version"), given.get("cursor")
        upgrades = set_desired_versions(
            version_of(found, from_version, "from") if from_version else None,
            version_of(found, given["to_version"], "to"),
            after_id=int(key_of(cursor, int)) if cursor else 0,
            limit=given.get("limit") or LOOKED_AT_MAX,
        )
        body = {"matched": upgrades.matched, "changed": upgrades.changed}
        if upgrades.last_id is not None:
            return Response({**body, "cursor": cursor_of(upgrades.last_id)})
        return Response(body)


class LogsView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"GET": scope("logs.read")}

    @operation(
        "Read logs",
        {200: LogsPage},
        parameters=[
            OpenApiParameter("from", OpenApiTypes.DATETIME, required=True),
            OpenApiParameter("to", OpenApiTypes.DATETIME),
            OpenApiParameter("machine", str, description="The machine's name."),
            OpenApiParameter("instance", str, description="The instance's name."),
            OpenApiParameter("version", str, description="The version's id."),
        ],
        description="At most 100 entries, the oldest first. Read on with `from=<maxTimestamp>`.",
    )
    def get(self, request: Request) -> Response:
        query = self._query(request)
        page = read_logs(self.caller, query, time.time_ns() // 1_000_000)
        return Response(LogsPage(page).data)

    def _query(self, request: Request) -> LogQuery:
        given = request.query_params
        if "from" not in given:
            raise InvalidParameter("from: say from when on", "from")
        instance = given.get("instance")
        if instance and not SLUG.match(instance):
            raise InvalidParameter("instance: is no name of an instance", "instance")
        return LogQuery(
            from_ms=_milliseconds(given["from"], "from"),
            to_ms=_milliseconds(given["to"], "to") if given.get("to") else None,
            machine=get_machine(self.caller, given["machine"]) if given.get("machine") else None,
            version=get_version(self.caller, given["version"]) if given.get("version") else None,
            instance_slug=instance or None,
        )


def _milliseconds(text: str, parameter: str) -> int:
    """An ISO 8601 time in milliseconds since the epoch. One without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError) as exc:
        raise InvalidParameter(
            f"{parameter}: is no ISO 8601 time such as 2026-11-21T18:37:00Z", parameter
        ) from exc
