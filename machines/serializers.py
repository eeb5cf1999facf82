"""JSON of machines, their versions and migrations."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from statebacked_site.fields import Flag, JsonObject, Slug, Text, Timestamp

CLIENT_INFO_LENGTH_MAX = 1000  # of the column
INDEXES_ARE_NOT_HERE = "This site has no indexes yet: leave it out"


@extend_schema_field(OpenApiTypes.ANY)
class NothingYet(serializers.Field[Any, Any, Any, Any]):
    """An empty list or object, of what this site can't do yet; anything in it is refused."""

    default_error_messages = {"invalid": INDEXES_ARE_NOT_HERE}  # noqa: RUF012

    def to_internal_value(self, data: Any) -> Any:
        if data not in ([], {}):
            self.fail("invalid")
        return data


class VersionJson(JsonObject):
    id = serializers.CharField(source="public_id")
    created_at = Timestamp()
    client_info = serializers.CharField()


class MachineJson(JsonObject):
    slug = serializers.CharField()
    created_at = Timestamp()
    current_version = VersionJson(required=False)


class MachineDetails(MachineJson):
    indexes = serializers.ListField(child=serializers.CharField(), default=list)


class MachineAnswer(MachineDetails):
    """The machine twice: older scripts read its fields at the top level."""

    machine = MachineDetails(source="*")


class MachinesPage(JsonObject):
    machines = MachineJson(many=True)
    cursor = serializers.CharField(required=False)


class CreateMachine(JsonObject):
    slug = Slug()
    indexes = NothingYet(required=False, allow_null=True)


class DeleteMachine(JsonObject):
    danger_data_will_be_deleted_forever = Flag()
    hmac_sha256_of_machine_name_with_machine_name_key = Text(
        help_text="base64url(hmacSha256(key = machine name, machine name))"
    )


class VersionsPage(JsonObject):
    versions = VersionJson(many=True)
    cursor = serializers.CharField(required=False)


class CodeUploadJson(JsonObject):
    """Where the code of something provisional goes."""

    code_upload_url = serializers.CharField()
    code_upload_fields = serializers.DictField(child=serializers.CharField())


class ProvisionalVersionJson(CodeUploadJson):
    machine_version_id = serializers.CharField(help_text="Signed: for finalizing it.")


class FinalizeVersion(JsonObject):
    client_info = Text(
        required=False, allow_null=True, allow_blank=True, max_length=CLIENT_INFO_LENGTH_MAX
    )
    make_current = Flag(required=False, allow_null=True)
    index_selectors = NothingYet(required=False, allow_null=True)


class PublishedVersionJson(JsonObject):
    machine_version_id = serializers.CharField()
    warnings = serializers.ListField(child=serializers.CharField(), required=False)


class MigrationJson(JsonObject):
    id = serializers.CharField(source="public_id")
    from_machine_version = VersionJson(source="from_version")
    to_machine_version = VersionJson(source="to_version")
    created_at = Timestamp()


class MigrationsPage(JsonObject):
    migrations = MigrationJson(many=True)
    cursor = serializers.CharField(required=False)


class CreateMigration(JsonObject):
    from_machine_version_id = Text()
    to_machine_version_id = Text()

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["from_machine_version_id"] == given["to_machine_version_id"]:
            raise serializers.ValidationError(
                {"toMachineVersionId": "is the version that the migration is from"}
            )
        return given


class ProvisionalMigrationJson(CodeUploadJson):
    machine_version_migration_id = serializers.CharField(help_text="Signed: for finalizing it.")


class FinalizeMigration(JsonObject):
    """Nothing is to be said."""


class PublishedMigrationJson(JsonObject):
    machine_version_migration_id = serializers.CharField()
    warnings = serializers.ListField(child=serializers.CharField(), required=False)


@extend_schema_field(OpenApiTypes.BINARY)
class CodeFile(serializers.FileField):
    """An ES module, gzipped or as it is."""


class CodeUploadForm(JsonObject):
    """A form of the fields that came with the address, and the code."""

    upload_secret = serializers.CharField()
    file = CodeFile()
