"""/api/machines, their versions and migrations, and the addresses that take code."""

from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urljoin

from django.conf import settings
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from authz.permissions import Open, Rule, scope
from instances.serializers import CreateInstance, StateJson
from machines import lifecycle, publishing, uploads
from machines.access import get_machine, machines_of, version_of
from machines.confirmation import check_confirmation
from machines.migration_body import MigrationParser
from machines.models import MachineVersion, MachineVersionMigration
from machines.serializers import (
    CodeUploadForm,
    CreateMachine,
    CreateMigration,
    DeleteMachine,
    FinalizeMigration,
    FinalizeVersion,
    MachineAnswer,
    MachineJson,
    MachinesPage,
    MigrationJson,
    MigrationsPage,
    ProvisionalMigrationJson,
    ProvisionalVersionJson,
    PublishedMigrationJson,
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
        provisional = uploads.reserve_version(self.caller, found, datetime.now(UTC))
        return Response(_provisional(request, provisional, "machineVersionId"))


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
        published = publishing.finalize_version(
            self.caller,
            found,
            version,
            client_info=given.get("client_info") or "",
            make_current=given.get("make_current") or False,
        )
        return Response(
            _published("machineVersionId", published.version.public_id, published.warnings)
        )


class MigrationsView(ApiView):
    parser_classes = [MigrationParser]  # noqa: RUF012
    rules: ClassVar[dict[str, Rule]] = {
        "GET": scope("machine-versions.read"),
        "POST": scope("machine-versions.write"),
    }

    @operation(
        "List the migrations between the machine's versions, newest first",
        {200: MigrationsPage},
        parameters=[CURSOR],
    )
    def get(self, request: Request, machine: str) -> Response:
        found = get_machine(self.caller, machine)
        migrations = MachineVersionMigration.objects.filter(machine=found)
        with_versions = migrations.select_related("from_version", "to_version")
        page = page_of(with_versions, "-id", request.query_params.get("cursor"))
        return Response(page.body("migrations", lambda migration: MigrationJson(migration).data))

    @operation(
        "Create a provisional migration from one version to another",
        {200: ProvisionalMigrationJson},
        request=CreateMigration,
        description="Upload its code, an ES module that exports `upgradeState` and"
        " `upgradeContext`, to the address that is answered, then finalize it.",
    )
    def post(self, request: Request, machine: str) -> Response:
        found = get_machine(self.caller, machine)
        given = self.given(CreateMigration)
        provisional = uploads.reserve_migration(
            self.caller,
            version_of(found, given["from_machine_version_id"], "fromMachineVersionId"),
            version_of(found, given["to_machine_version_id"], "toMachineVersionId"),
            datetime.now(UTC),
        )
        return Response(_provisional(request, provisional, "machineVersionMigrationId"))


class ProvisionalMigrationView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"PUT": scope("machine-versions.write")}

    @operation(
        "Finalize a migration",
        {200: PublishedMigrationJson},
        request=FinalizeMigration,
        description="Loads the uploaded code; code that can't become a migration is a 400 that says"
        " what to change, and nothing is created.",
    )
    def put(self, request: Request, machine: str, migration: str) -> Response:
        found = get_machine(self.caller, machine)
        self.given(FinalizeMigration)
        published = publishing.finalize_migration(self.caller, found, migration)
        name = "machineVersionMigrationId"
        return Response(_published(name, published.migration.public_id, published.warnings))


class CodeUploadView(ApiView):
    authentication_classes = []  # noqa: RUF012
    parser_classes = [MultiPartParser]  # noqa: RUF012
    rules: ClassVar[dict[str, Rule]] = {"POST": Open("the form carries the upload's own secret")}

    @operation(
        "Upload the code of a provisional version or migration",
        {204: None},
        request=CodeUploadForm,
    )
    def post(self, request: Request, upload: str) -> Response:
        secret = request.POST.get(uploads.SECRET_FIELD, "")
        waiting = uploads.waiting_upload(upload, secret, datetime.now(UTC))
        # Unpacking costs time, and is only done for who has the secret.
        uploads.receive_code(waiting, code_of(request))
        return Response(status=204)


def _provisional(
    request: Request, provisional: uploads.Provisional, id_name: str
) -> dict[str, Any]:
    return {
        id_name: provisional.signed_id,
        "codeUploadUrl": urljoin(site_url(request), provisional.upload_path),
        "codeUploadFields": provisional.upload_fields,
    }


def _published(id_name: str, public_id: str, warnings: list[str]) -> dict[str, Any]:
    return {id_name: public_id, "warnings": warnings} if warnings else {id_name: public_id}


def site_url(request: Request) -> str:
    """Where the client reaches this site: as it is configured, or else as it just did."""
    return settings.PUBLIC_URL_GIVEN or request.build_absolute_uri("/")
