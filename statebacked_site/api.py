"""What every view below /api has in common: JSON in, JSON out, one caller, declared scopes."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from drf_spectacular.views import SpectacularAPIView
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from authz.callers import Caller
from authz.permissions import HasScope, Rule
from statebacked_site import idempotency
from statebacked_site.errors import (
    REQUEST_ID_HEADER,
    InvalidParameter,
    TooLarge,
    request_id,
)
from statebacked_site.json_text import MalformedJson, parse_json, write_json
from statebacked_site.openapi import ApiSchema

JSON_BODY_BYTES_MAX = 512_000


class JsonParser(BaseParser):
    """A JSON body of bounded size. An empty one counts as `{}`: the published client sends such."""

    media_type = "application/json"
    bytes_max: ClassVar[int] = JSON_BODY_BYTES_MAX

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        body = stream.read(self.bytes_max + 1)
        if len(body) > self.bytes_max:
            raise TooLarge(f"The body is larger than {self.bytes_max} bytes")
        if not body.strip():
            return {}
        try:
            return self.parse_json(body)
        except MalformedJson as exc:
            raise InvalidParameter(f"The body is not valid JSON: {exc}") from exc

    def parse_json(self, body: bytes) -> Any:
        """Raises MalformedJson."""
        return parse_json(body)


class JsonRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        return b"" if data is None else write_json(data)


class AlwaysJson(BaseContentNegotiation):
    """Answers JSON whatever `Accept` says: a client that asks for less gets a clear body anyway."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        content_type = request.content_type.partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == content_type), None)

    def select_renderer(
        self,
        request: Request,
        renderers: Any,
        format_suffix: str | None = None,
    ) -> Any:
        return renderers[0], renderers[0].media_type


class WithRequestId(APIView):
    """Names each request in its answer, whatever the answer is."""

    def finalize_response(
        self, request: Request, response: Any, *args: Any, **kwargs: Any
    ) -> Response:
        answer = super().finalize_response(request, response, *args, **kwargs)
        answer.headers.setdefault(REQUEST_ID_HEADER, request_id(request._request))
        return answer


class ApiView(WithRequestId):
    """A view below /api. `rules` says for each of its methods what the caller needs."""

    rules: ClassVar[dict[str, Rule]]
    # Methods that the event path answers, which has idempotency keys of its own.
    of_event_path: ClassVar[frozenset[str]] = frozenset()

    _claim: idempotency.Claim | None = None  # each request has a view of its own

    http_method_names = ["get", "head", "post", "put", "delete"]  # noqa: RUF012
    parser_classes = [JsonParser]  # noqa: RUF012 (declared so by DRF)
    renderer_classes = [JsonRenderer]  # noqa: RUF012
    permission_classes = [HasScope]  # noqa: RUF012
    content_negotiation_class = AlwaysJson
    schema = ApiSchema()

    @property
    def caller(self) -> Caller:
        caller = self.request.auth
        assert isinstance(caller, Caller), "the view has no authentication"
        return caller

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        # A chunked body has no declared length, and DRF would take it for empty.
        if not request.META.get("CONTENT_LENGTH", "").isdecimal():
            request.META["CONTENT_LENGTH"] = str(len(request.body))
        return super().initialize_request(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # A wrong method is a 405 for everybody, with or without a token.
        if request.method not in self.allowed_methods:
            self.http_method_not_allowed(request)
        super().initial(request, *args, **kwargs)
        if isinstance(request.auth, Caller) and request.method not in self.of_event_path:
            self._claim = idempotency.claim(request._request, request.auth)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        if self._claim is not None:
            self._claim.finish(response)
        return response

    def handle_exception(self, exc: Exception) -> Any:
        if isinstance(exc, idempotency.Replay):
            return exc.response
        return super().handle_exception(exc)

    def given(self, serializer_class: type[serializers.Serializer[Any]]) -> dict[str, Any]:
        """The body, checked against `serializer_class`; raises ValidationError, a 400."""
        serializer = serializer_class(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


class SchemaView(WithRequestId, SpectacularAPIView):
    """The description of the API, for everybody."""

    http_method_names = ["get", "head"]  # noqa: RUF012
    authentication_classes = []  # noqa: RUF012
