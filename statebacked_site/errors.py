"""Failures that callers are told about, and how each becomes an answer.

Everything below /api answers `{"error", "code", "parameter"?}`; pages answer a page. No answer
ever holds a stack trace: that goes to the log, under the request id that the answer carries.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import psycopg
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from rest_framework import exceptions as drf

from statebacked_site.identifiers import new_identifier
from statebacked_site.pooled_postgres.pool import NoConnection

logger = logging.getLogger(__name__)

API_PREFIX = "/api/"
READING = ("GET", "HEAD", "OPTIONS")
REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID_KEY = "statebacked.request_id"


class DomainError(Exception):
    """A failure the caller can act on. Anything else is a bug and stays a 500."""

    status: ClassVar[int] = 400  # HTTP status; like `code`, part of our API
    code: ClassVar[str]
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter  # the field, query parameter or header that is wrong
        self.instead: list[tuple[str, str]] = []  # what a page offers: (name, address)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"error": str(self), "code": self.code}
        if self.parameter is not None:
            body["parameter"] = self.parameter
        return body

    def headers(self) -> dict[str, str]:
        """Headers that the answer needs besides the body."""
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(self.retry_after_s)}


class InvalidParameter(DomainError):
    """Something in the request is malformed or of the wrong type."""

    code = "invalid-parameter"


class NotFound(DomainError):
    """Nothing of that name is here, or it belongs to another org: both look the same."""

    status = 404
    code = "not-found"


class MethodNotAllowed(DomainError):
    status = 405
    code = "method-not-allowed"


class NotAcceptable(DomainError):
    status = 406
    code = "not-acceptable"


class Conflict(DomainError):
    """Something of that name exists already."""

    status = 409
    code = "conflict"


class InvalidState(DomainError):
    """The object is not in a state that allows the operation."""

    status = 409
    code = "invalid-state"


class TooLarge(DomainError):
    status = 413
    code = "too-large"


class UnsupportedMediaType(DomainError):
    status = 415
    code = "unsupported-media-type"


class Unavailable(DomainError):
    """The site can't answer now; nothing was done."""

    status = 503
    code = "unavailable"
    retry_after_s = 1


class OutcomeUnknown(DomainError):
    """What was asked for may have been done, or not: nobody could find out."""

    status = 504
    code = "outcome-unknown"


class InternalError(DomainError):
    """A bug. The answer names only the request, whose id stands in the log."""

    status = 500
    code = "internal-error"


def request_id(request: HttpRequest) -> str:
    """The id of this request: the same in its answer and in everything logged for it."""
    meta = request.META
    if _REQUEST_ID_KEY not in meta:
        meta[_REQUEST_ID_KEY] = new_identifier("req")
    return str(meta[_REQUEST_ID_KEY])


def error_response(error: DomainError, request: HttpRequest) -> JsonResponse:
    """The JSON answer that tells of `error`."""
    response = JsonResponse(error.body(), status=error.status, headers=error.headers())
    response[REQUEST_ID_HEADER] = request_id(request)
    return response


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Answer for whatever a DRF view raised (the EXCEPTION_HANDLER of the settings)."""
    request: HttpRequest = context["request"]._request
    error = as_domain_error(exc, is_write=request.method not in READING)
    if error is None:
        error = internal_error(request, exc)
    return error_response(error, request)


def as_domain_error(exc: Exception, *, is_write: bool = False) -> DomainError | None:
    """`exc` in the words of our API; None if it is a bug.

    `is_write`: the request was to change something.
    """
    match exc:
        case DomainError():
            return exc
        case drf.ValidationError():
            return _first_complaint(exc.detail)
        case Http404():
            return NotFound("There is nothing here")
        case drf.MethodNotAllowed():
            return MethodNotAllowed(str(exc.detail))
        case drf.NotAcceptable():
            return NotAcceptable(str(exc.detail))
        case drf.UnsupportedMediaType():
            return UnsupportedMediaType(f"{exc.detail} Send application/json.")
        case drf.ParseError():
            return InvalidParameter(str(exc.detail))
        case RequestDataTooBig():
            return TooLarge("The body is too large")
        case SuspiciousOperation():
            return InvalidParameter("The request is malformed")
        case OperationalError() | InterfaceError():
            # Locked or gone: the caller may try again, and an operator must hear of it.
            logger.error("The database refused: %s", exc)
            if is_write and _may_have_committed(exc):
                return OutcomeUnknown("The database did not say whether this was done: look again")
            return Unavailable("The database can't be reached now")
    return None


def _may_have_committed(exc: Exception) -> bool:
    """Whether the connection was lost with something under way, perhaps its commit.

    An error that the database itself has reported came instead of the commit, except that it ends
    the connection; and where no connection was had, nothing can have happened.
    """
    cause = exc.__cause__
    if not isinstance(cause, psycopg.Error) or isinstance(cause, NoConnection):
        return False
    return cause.sqlstate is None or cause.sqlstate.startswith("57P")  # operator intervention


def internal_error(request: HttpRequest, exc: BaseException | None) -> InternalError:
    """Log `exc` with its traceback, and return what the caller is told instead."""
    name = request_id(request)
    logger.error("%s %s failed (%s)", request.method, request.path, name, exc_info=exc)
    return InternalError(f"Something went wrong here. The log has it under {name}.")


def _first_complaint(detail: Any) -> InvalidParameter:
    """The first message of a serializer's complaints, with the top-level field that it is about."""
    parameter = None
    if isinstance(detail, dict):
        parameter, detail = next(iter(detail.items()))
        if parameter == "non_field_errors":
            parameter = None
    while isinstance(detail, dict | list) and detail:
        detail = detail[0] if isinstance(detail, list) else next(iter(detail.values()))
    message = str(detail) if parameter is None else f"{parameter}: {detail}"
    return InvalidParameter(message, parameter)


# --- Django's own handlers: paths that no view answers, and failures outside of views ----------


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    # What the exception says may quote what the client sent, and helps nobody.
    error = as_domain_error(exception) or InvalidParameter("The request is malformed")
    return _answer(request, error)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page(request, HTTPStatus.FORBIDDEN, "You may not do this.")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, NotFound("There is nothing here"))


def too_many_requests(request: HttpRequest) -> HttpResponse:
    return _page(request, HTTPStatus.TOO_MANY_REQUESTS, "That was too often. Wait a minute.")


def server_error(request: HttpRequest) -> HttpResponse:
    # Django has logged the exception itself; the id ties its report to the answer.
    name = request_id(request)
    logger.error("%s %s failed (%s)", request.method, request.path, name)
    return _answer(
        request, InternalError(f"Something went wrong here. The log has it under {name}.")
    )


def _answer(request: HttpRequest, error: DomainError) -> HttpResponse:
    if request.path.startswith(API_PREFIX):
        return error_response(error, request)
    return _page(request, error.status, str(error))


def _page(request: HttpRequest, status: int, message: str) -> HttpResponse:
    # No context processors: they ask the database, which may be what failed.
    context = {"title": HTTPStatus(status).phrase, "message": message}
    page = render_to_string("site/error.html", context)
    return HttpResponse(page, status=status, headers={REQUEST_ID_HEADER: request_id(request)})
