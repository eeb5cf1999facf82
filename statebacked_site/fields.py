"""Objects and fields of our JSON, where they are stricter than DRF's own or new."""

from datetime import UTC, datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from statebacked_site.identifiers import SLUG_PATTERN
from statebacked_site.json_text import JsonText, stored_json


class JsonObject(serializers.Serializer[Any]):
    # A JSON object. Its fields are declared in snake_case and stand in the JSON in camelCase.
    # Absent and null are one: nothing that is None goes out.
    # (No docstring: the description of the API would give it to every object.)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = {}
        for name, field in super().get_fields().items():
            outward = camel_case(name)
            if outward != name and field.source is None:
                field.source = name
            fields[outward] = field
        return fields

    def to_representation(self, instance: Any) -> dict[str, Any]:
        represented = super().to_representation(instance)
        return {name: value for name, value in represented.items() if value is not None}


class Text(serializers.CharField):
    """A string. Unlike DRF's own field it does not turn numbers into strings."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Slug(serializers.RegexField):
    """The name of a machine or an instance."""

    default_error_messages = {  # noqa: RUF012
        "invalid": "must be 1 to 128 letters, digits, underscores or dashes"
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(SLUG_PATTERN, trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    """true or false, and no word that may mean either."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


@extend_schema_field(OpenApiTypes.DATETIME)
class Timestamp(serializers.Field[Any, Any, str, Any]):
    """A moment, as `2026-11-21T18:37:00.123Z`: what JavaScript's toISOString() writes.

    The source is an aware datetime, or milliseconds since the epoch.
    """

    def to_representation(self, value: datetime | int) -> str:
        return iso_timestamp(value)


@extend_schema_field(OpenApiTypes.ANY)
class StoredJson(serializers.Field[Any, Any, JsonText, Any]):
    """A JSON text of the database, put into the answer as it is."""

    def to_representation(self, value: str) -> JsonText:
        return stored_json(value)


def camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def iso_timestamp(moment: datetime | int) -> str:
    if isinstance(moment, int):
        # Not by way of a float, which may round a millisecond down.
        moment = datetime.fromtimestamp(moment // 1000, UTC).replace(
            microsecond=moment % 1000 * 1000
        )
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
