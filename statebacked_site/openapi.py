"""The description of our API at /api/schema."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers

from authz.permissions import Open, Rule, Scoped, rule_for
from statebacked_site.fields import JsonObject

if TYPE_CHECKING:
    from statebacked_site.api import ApiView

View = TypeVar("View", bound=Callable[..., Any])

CURSOR = OpenApiParameter("cursor", str, description="From an earlier page: where this one begins.")

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="With it the request is applied at most once. A repetition gets the first answer,"
    " and the header `idempotent-replayed: true`.",
)
WRITES = ("POST", "PUT", "PATCH", "DELETE")


class ErrorJson(JsonObject):
    error = serializers.CharField(help_text="For people: what was wrong with which value.")
    code = serializers.CharField(help_text="For programs, such as `invalid-parameter`.")
    parameter = serializers.CharField(required=False, help_text="The field that is wrong.")


def operation(
    summary: str,
    responses: dict[int, Any],
    *,
    request: Any = None,
    parameters: Sequence[Any] = (),
    description: str = "",
) -> Callable[[View], View]:
    """Describe one method of an `ApiView`; its errors and scopes are added by `ApiSchema`."""
    return extend_schema(
        summary=summary,
        description=description or None,
        request=request,
        responses=responses,
        parameters=list(parameters),
    )


class ApiSchema(AutoSchema):
    """Adds to each operation what its view declares: the scopes, and the errors that they imply."""

    def get_operation_id(self) -> str:
        return f"{self.method.lower()}{type(self.view).__name__.removesuffix('View')}"

    def get_description(self) -> str:  # type: ignore[override]  # DRF's own differs
        return ""  # not the view's docstring, which is for its programmers

    def get_override_parameters(self) -> list[Any]:
        return [IDEMPOTENCY_KEY] if self.method in WRITES else []

    def get_auth(self) -> list[dict[str, Any]]:
        match self._rule():
            case Open():
                return []
            case Scoped(any_of=any_of):
                return [{"BearerAuth": [scope]} for scope in any_of]
            case _:
                return [{"BearerAuth": []}]

    def _rule(self) -> Rule:
        return rule_for(cast("ApiView", self.view).rules, self.method)

    def _get_request_body(
        self, direction: Literal["request", "response"] = "request"
    ) -> dict[str, Any] | None:
        # Deleting data needs a confirmation, and the generator knows no bodies of DELETE.
        if self.method != "DELETE":
            body = super()._get_request_body(direction)  # type: ignore[no-untyped-call]
            return cast("dict[str, Any] | None", body)
        serializer = self.get_request_serializer()
        if serializer is None:
            return None
        component = self.resolve_serializer(serializer, "request")
        return {"content": {"application/json": {"schema": component.ref}}, "required": True}

    def _get_response_bodies(
        self, direction: Literal["request", "response"] = "response"
    ) -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        for status, meaning in self._errors().items():
            bodies.setdefault(status, self._error_body(meaning))
        return bodies

    def _errors(self) -> dict[str, str]:
        errors = {"400": "Something in the request is malformed."}
        if not isinstance(self._rule(), Open):
            errors["403"] = "The token is missing, not good, or lacks the scope."
        if "{" in self.path:
            errors["404"] = "It is not here, or belongs to another org."
        if self.get_request_serializer() is not None:
            errors["413"] = "The body is too large."
            errors["415"] = "The body is of the wrong type."
        if self.method in WRITES:
            errors["409"] = "It exists already, or its state does not allow this."
        errors["default"] = "Any other failure, such as 429 or 503 with `Retry-After`."
        return errors

    def _error_body(self, meaning: str) -> dict[str, Any]:
        component = self.resolve_serializer(ErrorJson, "response")
        return {
            "description": meaning,
            "content": {"application/json": {"schema": component.ref}},
        }


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "authz.authentication.TokenAuthentication"
    match_subclasses = True
    name = "BearerAuth"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
