"""`Idempotency-Key` on the writes of the management API: each is applied at most once.

The first request with a key is noted before it is processed. If it succeeds, its answer is kept for
a day and given to every repetition. If it fails it is forgotten: nothing was applied, and the same
key may be used again. A request that never came to an end, because its server did not live to see
it, may have been applied or not, and that is what a repetition is told.

Sending events and creating instances have keys of their own, in the instance's history (lean.py).
"""

import hashlib
import logging
import time
from typing import ClassVar

from django.db import DatabaseError, IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from authz.callers import Caller
from authz.secrets import decrypt, encrypt
from statebacked_site.errors import DomainError, InvalidParameter, OutcomeUnknown
from statebacked_site.json_text import write_json
from statebacked_site.models import IdempotentAnswer

log = logging.getLogger("statebacked.api")

HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 255
KEPT_MS = 86_400_000
# No request takes longer (door.CALL_LIMIT_S): what is not answered by then never will be.
PROCESSING_MS = 120_000
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class KeyReused(DomainError):
    """The key came with another request before."""

    status = 422
    code = "idempotency-key-reused"


class InProgress(DomainError):
    """The first request with this key is not answered yet."""

    status = 409
    code = "request-in-progress"
    retry_after_s = 1


class Replay(Exception):
    """The request was answered before: this is that answer."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__()
        self.response = response


class Claim:
    """A request that is the first one with its key."""

    __slots__ = ("row",)

    succeeded: ClassVar[range] = range(200, 300)

    def __init__(self, row: IdempotentAnswer) -> None:
        self.row = row

    def finish(self, response: HttpResponseBase) -> None:
        """Keep the answer, or forget the request if it failed. Has `response` rendered.

        A request whose outcome is unknown stays as one that was never answered.
        """
        try:
            if response.status_code in self.succeeded:
                self._keep(response)
            elif response.status_code != OutcomeUnknown.status:
                self.row.delete()
        except DatabaseError as exc:
            # What was asked for is done, and that is what the client must hear.
            log.error("the answer to a request with an %s was not kept: %s", HEADER, exc)

    def _keep(self, response: HttpResponseBase) -> None:
        render = getattr(response, "render", None)
        if render is not None:
            render()
        assert isinstance(response, HttpResponse)
        self.row.status = response.status_code
        self.row.content_type = response.headers.get("content-type", "")
        self.row.content_encrypted = encrypt(response.content.decode())
        self.row.save()


def claim(request: HttpRequest, caller: Caller, now_ms: int | None = None) -> Claim | None:
    """Note a request that has a key; None if it has none.

    Raises Replay if it was answered before, and KeyReused, InProgress, OutcomeUnknown or
    InvalidParameter.
    """
    key = request.headers.get(HEADER)
    if key is None or request.method not in WRITES:
        return None
    if not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isprintable():
        raise InvalidParameter(
            f"{HEADER}: must have 1 to {KEY_LENGTH_MAX} printable characters", HEADER
        )
    if now_ms is None:
        now_ms = time.time_ns() // 1_000_000
    IdempotentAnswer.objects.filter(created_at__lt=now_ms - KEPT_MS).delete()
    row = IdempotentAnswer(
        request_sha256=_sha256(_identity(request, caller, key)),
        body_sha256=_sha256(request.body),
        created_at=now_ms,
    )
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        first = IdempotentAnswer.objects.filter(request_sha256=row.request_sha256).first()
        if first is None:  # it has just failed
            raise InProgress("The first request with this key has just ended: try again") from None
        _repeat(first, row, now_ms)
    return Claim(row)


def _repeat(first: IdempotentAnswer, repetition: IdempotentAnswer, now_ms: int) -> None:
    """Raises what a repetition is answered with."""
    if first.body_sha256 != repetition.body_sha256:
        raise KeyReused(f"This {HEADER} came with another body before: use a new one")
    if first.status is not None:
        response = HttpResponse(
            decrypt(bytes(first.content_encrypted)),
            status=first.status,
            content_type=first.content_type or None,
        )
        response.headers["idempotent-replayed"] = "true"
        raise Replay(response)
    if now_ms - first.created_at < PROCESSING_MS:
        raise InProgress("The first request with this key is being processed")
    raise OutcomeUnknown(
        "The server that processed the first request with this key did not live to answer it:"
        " look whether it was applied, and use a new key"
    )


def _identity(request: HttpRequest, caller: Caller, key: str) -> bytes:
    return write_json(
        [
            caller.user_id,
            caller.key_public_id,
            caller.org_id,
            caller.auth_context,
            request.method,
            request.get_full_path(),
            key,
        ]
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
