"""/api/dead-letters: deliveries that failed for good, to be looked at and sent again."""

import time
from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from authz.permissions import Rule, scope
from instances import deliveries
from instances.models import DeadLetter
from instances.serializers import DeadLetterJson, DeadLettersPage, Redrive
from machines.models import Machine
from statebacked_site.api import ApiView
from statebacked_site.errors import NotFound
from statebacked_site.json_text import write_json
from statebacked_site.openapi import CURSOR, operation
from statebacked_site.paging import page_of

ADMIN = scope(deliveries.SCOPE)
DIGITS_MAX = 18


class DeadLettersView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"GET": ADMIN}

    @operation(
        "List the org's dead letters",
        {200: DeadLettersPage},
        parameters=[CURSOR],
        description="Timers and messages that failed five times, 30 seconds apart.",
    )
    def get(self, request: Request) -> Response:
        page = page_of(deliveries.letters(self.caller), "-id", request.query_params.get("cursor"))
        machine_ids = {letter.target_machine_id for letter in page.items}
        slugs = dict(Machine.objects.filter(pk__in=machine_ids).values_list("pk", "slug"))

        def to_json(letter: DeadLetter) -> Any:
            context = {"machine_name": slugs.get(letter.target_machine_id, letter.target_machine)}
            return DeadLetterJson(letter, context=context).data

        return Response(page.body("deadLetters", to_json))


class DeadLetterView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"DELETE": ADMIN}

    @operation("Discard a dead letter", {204: None})
    def delete(self, request: Request, letter: str) -> Response:
        deliveries.discard(self.caller, _id(letter))
        return Response(status=204)


class RedriveView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"POST": ADMIN}

    @operation(
        "Send a dead letter again",
        {204: None},
        request=Redrive,
        description="It is due at once and has all its tries before it.",
    )
    def post(self, request: Request, letter: str) -> Response:
        given = self.given(Redrive)
        event = write_json(given["event"]).decode() if "event" in given else None
        deliveries.redrive(self.caller, _id(letter), time.time_ns() // 1_000_000, event)
        return Response(status=204)


def _id(text: str) -> int:
    """Raises NotFound for what can be no id."""
    if not text.isascii() or not text.isdecimal() or len(text) > DIGITS_MAX:
        raise NotFound("There is no such dead letter")
    return int(text)
