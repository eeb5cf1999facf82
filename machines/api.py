"""/api/machines, their versions, and the addresses that take code."""

from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urljoin

from django.conf import settings
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from authz.permissions import Open, Rule, scope
from instances.serializers import CreateInstance, StateJson
from machines import lifecycle, publishing
from machines.access import get_machine, machines_of
from machines.confirmation import check_confirmation
from machines.models import MachineVersion
from machines.serializers import (
    CodeUploadForm,
    CreateMachine,
    DeleteMachine,
    FinalizeVersion,
    MachineAnswer,
    MachineJson,
    MachinesPage,
    ProvisionalVersionJson,
    PublishedVersionJson,
    VersionJson,
    VersionsPage,
)
from machines.upload_form import MultiPartParser, code_of
from statebacked_site.api import ApiView
from statebacked_site.openapi import CURSOR, operation
from statebacked_site.paging import page_of


class MachinesView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {
        "GET": scope("machines.read"),
        "POST": scope("machines.write"),
    }

    @operation("List your machines", {200: MachinesPage}, parameters=[CURSOR])
    def get(self, request: Request) -> Response:
        page = page_of(machines_of(self.caller), "slug", request.query_params.get("cursor"))
        return Response(page.body("machines", lambda machine: MachineJson(machine).data))

    @operation("Create a machine", {201: MachineJson}, request=CreateMachine)
    def post(self, request: Request) -> Response:
        given = self.given(CreateMachine)
        machine = lifecycle.create_machine(self.caller, given["slug"])
        return Response(MachineJson(machine).data, status=201)


class MachineView(ApiView):
    of_event_path: ClassVar[frozenset[str]] = frozenset({"POST"})
    rules: ClassVar[dict[str, Rule]] = {
        "GET": scope("machines.read"),
        "POST": scope("instances.write"),
        "DELETE": scope("machines.admin"),
    }

    @operation("Get a machine", {200: MachineAnswer})
    def get(self, request: Request, machine: str) -> Response:
        return Response(MachineAnswer(get_machine(self.caller, machine)).data)

    @operation(
        "Create an instance of the machine",
        {200: StateJson},
        request=CreateInstance,
        description="Answers the state in which the instance settles. The version's `allowWrite`"
        " decides whether it may be created.",
    )
    def post(self, request: Request, machine: str) -> HttpResponse:
        from instances import lean

        return lean.respond(request._request, operation="create", machine=machine)

    @operation(
        "Delete a machine with its versions",
        {204: None},
        request=DeleteMachine,
        description="Only a machine without instances can be deleted.",
    )
    def delete(self, request: Request, machine: str) -> Response:
        found = get_machine(self.caller, machine)
        given = self.given(DeleteMachine)
        check_confirmation(
            confirmed=given["danger_data_will_be_deleted_forever"],
            given_hmac=given["hmac_sha256_of_machine_name_with_machine_name_key"],
            machine_slug=found.slug,
            name=found.slug,
            parameter="hmacSha256OfMachineNameWithMachineNameKey",
        )
        lifecycle.delete_machine(found)
        return Response(status=204)


class VersionsView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {
        "GET": scope("machine-versions.read"),
        "POST": scope("machine-versions.write"),
    }

    @operation(
        "List the machine's versions, newest first", {200: VersionsPage}, parameters=[CURSOR]
    )
    def get(self, request: Request, machine: str) -> Response:
        versions = MachineVersion.objects.filter(machine=get_machine(self.caller, machine))
        page = page_of(versions, "-id", request.query_params.get("cursor"))
        return Response(page.body("versions", lambda version: VersionJson(version).data))

    @operation(
        "Create a provisional version",
        {200: ProvisionalVersionJson},
        description="Upload its code to the address that is answered, then finalize it.",
    )
    def post(self, request: Request, machine: str) -> Response:
        found = get_machine(self.caller, machine)
        provisional = publishing.provision(self.caller, found, datetime.now(UTC))
        return Response(
            {
                "machineVersionId": provisional.signed_id,
                "codeUploadUrl": urljoin(site_url(request), provisional.upload_path),
                "codeUploadFields": provisional.upload_fields,
            }
        )


class ProvisionalVersionView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"PUT": scope("machine-versions.write")}

    @operation(
        "Finalize a version",
        {200: PublishedVersionJson},
        request=FinalizeVersion,
        description="Loads the uploaded code; code that can't become a version is a 400 that says"
        " what to change, and nothing is created.",
    )
    def put(self, request: Request, machine: str, version: str) -> Response:
        found = get_machine(self.caller, machine)
        given = self.given(FinalizeVersion)
        published = publishing.finalize(
            self.caller,
            found,
            version,
            client_info=given.get("client_info") or "",
            make_current=given.get("make_current") or False,
        )
        body: dict[str, Any] = {"machineVersionId": published.version.public_id}
        if published.warnings:
            body["warnings"] = published.warnings
        return Response(body)


class CodeUploadView(ApiView):
    authentication_classes = []  # noqa: RUF012
    parser_classes = [MultiPartParser]  # noqa: RUF012
    rules: ClassVar[dict[str, Rule]] = {"POST": Open("the form carries the upload's own secret")}

    @operation("Upload the code of a provisional version", {204: None}, request=CodeUploadForm)
    def post(self, request: Request, upload: str) -> Response:
        secret = request.POST.get(publishing.SECRET_FIELD, "")
        waiting = publishing.waiting_upload(upload, secret, datetime.now(UTC))
        # Unpacking costs time, and is only done for who has the secret.
        publishing.receive_code(waiting, code_of(request))
        return Response(status=204)


def site_url(request: Request) -> str:
    """Where the client reaches this site: as it is configured, or else as it just did."""
    return settings.PUBLIC_URL_GIVEN or request.build_absolute_uri("/")
