"""A write with an `Idempotency-Key` is applied at most once, whatever it does."""

import time

import psycopg
import pytest
from django.db import OperationalError

from authz.models import Key, Org
from machines.models import Machine
from statebacked_site import idempotency
from statebacked_site.models import IdempotentAnswer
from tests.factories import Api, admin_api, assert_error, make_access_token, make_member, make_org

pytestmark = pytest.mark.django_db

REPLAYED = "idempotent-replayed"


@pytest.fixture
def org() -> Org:
    return make_org()


def keyed(org: Org, key: str = "k-1") -> Api:
    api = admin_api(org)
    api.headers["idempotency-key"] = key
    return api


def test_repetition_gets_the_first_answer(org):
    api = keyed(org)

    first = api.post("/machines", {"slug": "order"})
    again = api.post("/machines", {"slug": "order"})

    assert (first.status_code, REPLAYED in first.headers) == (201, False)
    assert (again.status_code, again.headers[REPLAYED]) == (201, "true")
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert Machine.objects.count() == 1


def test_answer_without_a_body_is_repeated(org):
    api = admin_api(org)
    id_ = api.post("/keys", {"name": "a", "use": "ci"}).json()["id"]
    api.headers["idempotency-key"] = "delete-1"

    answers = [api.delete(f"/keys/{id_}") for _ in range(2)]

    assert [(a.status_code, a.content) for a in answers] == [(204, b"")] * 2
    assert answers[1].headers[REPLAYED] == "true"


def test_secret_is_repeated_and_nowhere_in_clear(org):
    api = keyed(org)

    secrets = [api.post("/keys", {"name": "a", "use": "ci"}).json()["key"] for _ in range(2)]

    assert secrets[0] == secrets[1]
    assert Key.objects.count() == 1
    row = IdempotentAnswer.objects.get()
    assert secrets[0].encode() not in bytes(row.content_encrypted)
    assert b'"key"' not in bytes(row.content_encrypted)


def test_key_with_another_body_is_refused(org):
    api = keyed(org)
    api.post("/machines", {"slug": "order"})

    assert_error(api.post("/machines", {"slug": "other"}), 422, "idempotency-key-reused")
    assert Machine.objects.count() == 1


def test_keys_of_others_and_of_other_paths_are_other_keys(org):
    api, other_org = keyed(org), make_org()
    person = make_member(org)
    colleague = Api(make_access_token(person), **{"idempotency-key": "k-1"})

    made = [
        api.post("/machines", {"slug": "order"}),
        api.post("/keys", {"slug": "order", "name": "x", "use": "ci"}),
        keyed(other_org).post("/machines", {"slug": "order"}),
    ]

    assert all(REPLAYED not in answer.headers for answer in made)
    assert [answer.status_code < 300 for answer in made] == [True] * 3
    assert_error(colleague.post("/machines", {"slug": "order"}), 409, "conflict")


def test_failed_request_does_not_use_its_key_up(org):
    api = keyed(org)

    refused = api.post("/machines", {"slug": "not a name"})
    made = api.post("/machines", {"slug": "order"})

    assert (refused.status_code, made.status_code) == (400, 201)
    assert REPLAYED not in made.headers


def test_key_of_a_request_that_may_be_applied_is_used_up(org, monkeypatch):
    def lose(*_args, **_kwargs):
        error = OperationalError("the connection is lost")
        error.__cause__ = psycopg.OperationalError("the connection is lost")
        raise error

    monkeypatch.setattr("machines.lifecycle.create_machine", lose)
    api = keyed(org)
    assert_error(api.post("/machines", {"slug": "order"}), 504, "outcome-unknown")
    monkeypatch.undo()

    assert_error(api.post("/machines", {"slug": "order"}), 409, "request-in-progress")
    late = time.time_ns() // 1_000_000 - idempotency.PROCESSING_MS - 1
    IdempotentAnswer.objects.update(created_at=late)
    assert_error(api.post("/machines", {"slug": "order"}), 504, "outcome-unknown")
    assert not Machine.objects.exists()


def test_second_request_at_the_same_time_is_told_to_wait(org, monkeypatch):
    api = keyed(org)
    from machines import lifecycle

    seen = []
    create = lifecycle.create_machine

    def creating(*args):
        seen.append(api.post("/machines", {"slug": "order"}))
        return create(*args)

    monkeypatch.setattr(lifecycle, "create_machine", creating)

    assert api.post("/machines", {"slug": "order"}).status_code == 201
    assert_error(seen[0], 409, "request-in-progress")
    assert seen[0].headers["retry-after"] == "1"


def test_request_that_was_never_answered_is_of_unknown_outcome(org):
    api = keyed(org)
    api.post("/machines", {"slug": "order"})
    began = time.time_ns() // 1_000_000 - idempotency.PROCESSING_MS
    IdempotentAnswer.objects.update(status=None, created_at=began)

    assert_error(api.post("/machines", {"slug": "order"}), 504, "outcome-unknown")


def test_answer_is_kept_for_a_day(org):
    api = keyed(org)
    api.post("/machines", {"slug": "order"})
    IdempotentAnswer.objects.update(
        created_at=time.time_ns() // 1_000_000 - idempotency.KEPT_MS - 1
    )

    assert_error(api.post("/machines", {"slug": "order"}), 409, "conflict")
    assert not IdempotentAnswer.objects.exists()


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_bad_key_is_refused(org, key):
    answer = keyed(org, key).post("/machines", {"slug": "order"})

    assert_error(answer, 400, "invalid-parameter", "Idempotency-Key")
    assert not Machine.objects.exists()


def test_reading_needs_no_key(org):
    assert keyed(org).get("/machines").status_code == 200
    assert not IdempotentAnswer.objects.exists()


def test_requests_without_permission_leave_nothing(org):
    stranger = Api("sbat_x", **{"idempotency-key": "k"})

    assert stranger.post("/machines", {"slug": "order"}).status_code == 403
    assert not IdempotentAnswer.objects.exists()
