"""JSON of orgs and keys."""

from typing import Any

from rest_framework import serializers

from authz import scopes
from authz.models import Membership
from statebacked_site.fields import Flag, JsonObject, Text, Timestamp

NAME_LENGTH_MAX = 200

# This site counts no usage against a limit. Clients expect a number, so it is the largest one
# that JavaScript holds exactly.
NO_LIMIT = 2**53 - 1


class LimitsJson(JsonObject):
    monthly_events_limit = serializers.IntegerField()
    monthly_reads_limit = serializers.IntegerField()

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return dict.fromkeys(self.fields, NO_LIMIT)


class OrgJson(JsonObject):
    """An org as one of its members sees it; the source is the membership."""

    id = serializers.CharField(source="org.public_id")
    name = serializers.CharField(source="org.name")
    role = serializers.ChoiceField(choices=Membership.Role.choices)
    created_at = Timestamp(source="org.created_at")
    limits = LimitsJson(source="*")


class OrgsPage(JsonObject):
    orgs = OrgJson(many=True)
    cursor = serializers.CharField(required=False)


class CreateOrg(JsonObject):
    name = Text(max_length=NAME_LENGTH_MAX)
    allow_anonymous_access = Flag(default=True)


class CreatedOrg(JsonObject):
    id = serializers.CharField()


class KeyJson(JsonObject):
    id = serializers.CharField(source="public_id")
    name = serializers.CharField()
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=sorted(scopes.ALL)))
    created_at = Timestamp()


class KeysPage(JsonObject):
    keys = KeyJson(many=True)
    cursor = serializers.CharField(required=False)


class CreateKey(JsonObject):
    name = Text(max_length=NAME_LENGTH_MAX)
    use = serializers.ChoiceField(
        choices=sorted(scopes.OF_USE),
        required=False,
        allow_null=True,
        help_text="Stands for the usual scopes. Explicit `scopes` win over it.",
    )
    scopes = serializers.ListField(
        child=Text(), required=False, allow_null=True, max_length=len(scopes.ALL) * 2
    )


class CreatedKeyJson(JsonObject):
    id = serializers.CharField()
    key = serializers.CharField(help_text="The secret. It is shown this once.")
