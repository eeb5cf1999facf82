"""JSON of instances, their history and their logs."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from instances.engine.holding import Resume
from instances.models import Delivery, Instance, Transition
from instances.stored_state import parse_state
from instances.upgrading import LOOKED_AT_MAX
from machines.serializers import VersionJson
from statebacked_site.fields import Flag, JsonObject, Slug, StoredJson, Text, Timestamp
from statebacked_site.json_text import JsonText

STATUSES = [
    (status.label, status.label) for status in (Instance.Status.RUNNING, Instance.Status.PAUSED)
]

KINDS = {kind: str(kind.label).replace(" ", "-") for kind in Transition.Kind}


@extend_schema_field(
    {
        "oneOf": [{"type": "string"}, {"type": "object", "additionalProperties": True}],
        "description": "The active states, such as `idle` or `{form: {name: valid}}`.",
    }
)
class StateValue(serializers.Field[Any, Any, JsonText, Any]):
    """XState's state value. The source of these three is the stored state."""

    def to_representation(self, value: str) -> JsonText:
        return parse_state(value).state


@extend_schema_field(serializers.ListField(child=serializers.CharField()))
class Tags(serializers.Field[Any, Any, JsonText, Any]):
    def to_representation(self, value: str) -> JsonText:
        return parse_state(value).tags


@extend_schema_field(OpenApiTypes.BOOL)
class Done(serializers.Field[Any, Any, bool, Any]):
    def to_representation(self, value: str) -> bool:
        return parse_state(value).done


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string"},
            {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"type": "string"}},
                "additionalProperties": True,
            },
        ]
    }
)
class Event(StoredJson):
    """An event: its type, or an object with its type and payload."""


@extend_schema_field(OpenApiTypes.OBJECT)
class Context(StoredJson):
    """The machine's data."""


class StateJson(JsonObject):
    """What a client sees of an instance."""

    ts = serializers.IntegerField(help_text="Grows with every state of the instance.")
    state = StateValue()
    public_context = Context(required=False, help_text="`context.public`")
    tags = serializers.ListField(child=serializers.CharField())
    done = serializers.BooleanField()


class CreateInstance(JsonObject):
    slug = Slug()
    context = Context(required=False)  # type: ignore[assignment]  # no attribute: a declared field
    machine_version_id = Text(required=False, help_text="By default the machine's current version.")


class SendEvent(JsonObject):
    event = Event()


class StatusField(serializers.ChoiceField):
    """`running` or `paused`, from and to the number that is stored."""

    def to_representation(self, value: Any) -> str:
        return str(Instance.Status(value).label)


class KindField(serializers.ChoiceField):
    """Such as `client` or `lost-service`, from the number that is stored."""

    def to_representation(self, value: Any) -> str:
        return KINDS[Transition.Kind(value)]


class InstanceJson(JsonObject):
    slug = serializers.CharField()
    created_at = Timestamp()
    status = StatusField(choices=STATUSES)
    machine_version = VersionJson(source="version")


class InstancesPage(JsonObject):
    instances = InstanceJson(many=True)
    cursor = serializers.CharField(required=False)


class AdminStateJson(JsonObject):
    """All of an instance."""

    state = StateValue()
    context = Context()  # type: ignore[assignment]  # no attribute: a declared field
    tags = Tags(source="state")
    done = Done(source="state")
    status = StatusField(choices=STATUSES)
    paused_at = Timestamp(required=False)
    machine_version = VersionJson(source="version")
    desired_machine_version = VersionJson(source="desired_version", required=False)
    created_at = Timestamp()


class DeleteInstance(JsonObject):
    danger_data_will_be_deleted_forever = Flag()
    hmac_sha256_of_machine_instance_name_with_machine_name_key = Text(
        help_text="base64url(hmacSha256(key = machine name, instance name))"
    )


class SetStatus(JsonObject):
    status = serializers.ChoiceField(choices=STATUSES)
    timers = serializers.ChoiceField(
        choices=[resume.label for resume in Resume],
        required=False,
        help_text="With `running`: when the held timers fire. `original`: at their time, and at"
        " once what is overdue; `keep-remaining`: later by as long as the pause was; `fire-now`:"
        " all at once. By default `original`.",
    )

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["status"] != Instance.Status.RUNNING.label and "timers" in given:
            raise serializers.ValidationError({"timers": "only goes with the status running"})
        return given


class SetVersion(JsonObject):
    target_machine_version_id = Text()


class UpgradeInstances(JsonObject):
    from_version = Text(
        required=False,
        allow_null=True,
        help_text="The id of the version whose instances are meant; by default of every version"
        " from which migrations lead to the other.",
    )
    to_version = Text(help_text="The id of the version that they should have.")
    limit = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=LOOKED_AT_MAX,
        help_text="How many of the machine's instances are looked at.",
    )
    cursor = Text(
        required=False,
        allow_null=True,
        allow_blank=True,
        help_text="From the answer before: where to go on.",
    )

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # The names are those of the event that an upgrade records, and no names in Python.
        outward = {"fromVersion": "from", "toVersion": "to"}
        return {outward.get(name, name): field for name, field in super().get_fields().items()}

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("from_version") == given["to_version"]:
            raise serializers.ValidationError({"to": "is the version that they are to leave"})
        return given


class UpgradesJson(JsonObject):
    matched = serializers.IntegerField(
        help_text="Instances among those that were looked at that can be upgraded."
    )
    changed = serializers.IntegerField(
        help_text="Those of them for which this version was not the desired one before."
    )
    cursor = serializers.CharField(
        required=False, help_text="There are more: send the request again with it."
    )


class TransitionJson(JsonObject):
    created_at = Timestamp()
    state = StateValue()
    event = Event()
    seq = serializers.IntegerField(help_text="1 is the creation.")
    kind = KindField(choices=list(KINDS.values()), help_text="What the event came from.")


class TransitionsPage(JsonObject):
    transitions = TransitionJson(many=True)
    cursor = serializers.CharField(required=False)


class LogEntryJson(JsonObject):
    timestamp = Timestamp()
    org_id = serializers.CharField()
    machine_name = serializers.CharField()
    instance_name = serializers.CharField()
    machine_version_id = serializers.CharField()
    output_type = serializers.ChoiceField(choices=["stdout", "stderr"])
    log = serializers.CharField()


class LogsPage(JsonObject):
    logs = LogEntryJson(many=True)
    max_timestamp = Timestamp(help_text="Pass it as `from` to read on.")


DELIVERY_KINDS = {kind: str(kind.label).replace(" ", "-") for kind in Delivery.Kind}


class DeliveryKindField(serializers.ChoiceField):
    """Such as `timer`, from the number that is stored."""

    def to_representation(self, value: Any) -> str:
        return DELIVERY_KINDS[Delivery.Kind(value)]


class MachineName(serializers.Field[Any, Any, str, Any]):
    """The name of the machine that the view has looked up."""

    def to_representation(self, value: Any) -> str:
        return str(self.context["machine_name"])


class DeadLetterJson(JsonObject):
    id = serializers.IntegerField()
    kind = DeliveryKindField(choices=list(DELIVERY_KINDS.values()))
    machine_name = extend_schema_field(OpenApiTypes.STR)(MachineName)(source="target_machine_id")
    machine_instance_name = serializers.CharField(source="target_slug")
    event = Event()
    reason = serializers.CharField(help_text="Why the last try failed.")
    attempts = serializers.IntegerField()
    due_at = Timestamp()
    died_at = Timestamp()


class DeadLettersPage(JsonObject):
    dead_letters = DeadLetterJson(many=True)
    cursor = serializers.CharField(required=False)


class Redrive(JsonObject):
    event = serializers.JSONField(required=False, help_text="In place of its own event.")
