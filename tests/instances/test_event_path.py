"""The event path against a real server: what it refuses, and that a refusal changes nothing."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from tests.acceptance.http_client import HttpClient
from tests.conftest import Server, run_manage_py

MACHINE = """
import { createMachine, assign } from "npm:xstate@5";
export const allowRead = ({ authContext }) => authContext.sub !== "stranger";
export const allowWrite = ({ authContext }) => authContext.sub !== "stranger";
export default createMachine({
  initial: "idle",
  context: { public: { n: 0 } },
  states: { idle: { on: {
    count: { actions: assign({ public: ({ context }) => ({ n: context.public.n + 1 }) }) },
    echo: { actions: assign({ public: ({ context, event }) => ({ ...context.public, event }) }) },
    fail: { actions: assign(() => { throw new Error("kaboom"); }) },
  } } },
});
"""

_names = itertools.count(1)


class Counter:
    """An instance of the machine above, and the ways to it."""

    def __init__(self, client: HttpClient, slug: str) -> None:
        self.client = client
        self.slug = slug
        self.path = f"/machines/path/i/{slug}"

    def send(self, body: object, **options: Any) -> Any:
        return self.client.request("POST", f"{self.path}/events", body, **options)

    def history(self) -> list[Any]:
        answer = self.client.request("GET", f"{self.path}/events")
        return list(answer.json["transitions"])


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpClient]:
    path = tmp_path_factory.mktemp("path") / "path.mjs"
    path.write_text(MACHINE)
    run_manage_py("deploy", str(path), "--data", str(server.data_dir))
    client = HttpClient(server.api_url, server.headers)
    yield client
    client.close()


@pytest.fixture
def counter(client: HttpClient) -> Counter:
    slug = f"c{next(_names)}"
    assert client.request("POST", "/machines/path", {"slug": slug}).status == 200
    return Counter(client, slug)


def bearer(key: Any, for_s: float = 3600, **claims: Any) -> dict[str, str]:
    """The headers of an end user whose token this key has signed."""
    token = jwt.encode(
        {"alg": "HS256", "kid": key["id"]},
        {
            "aud": "https://api.statebacked.dev/",
            "exp": int(time.time() + for_s),
            "act": {"sub": "u_1"},
            **claims,
        },
        OctKey.import_key(key["key"].encode()),
    )
    return {"authorization": f"Bearer {token}", "x-statebacked-org-id": ""}


def make_key(client: HttpClient, *scopes: str) -> Any:
    body = {"name": "test", "scopes": list(scopes)}
    return client.request("POST", "/keys", body).json


@pytest.mark.parametrize("event", ["count", {"type": "count"}])
def test_event_may_be_an_object_or_its_type(counter, event):
    answer = counter.send({"event": event})

    assert answer.status == 200
    assert answer.json["publicContext"] == {"n": 1}
    assert answer.headers["x-request-id"]
    assert answer.headers["access-control-allow-origin"] == "*"


def test_event_that_no_state_handles_answers_the_state(counter):
    answer = counter.send({"event": "nothing"})

    assert answer.status == 200
    assert answer.json["publicContext"] == {"n": 0}
    assert len(counter.history()) == 1


MALFORMED = [
    "",
    "{",
    "[]",
    "null",
    '"count"',
    "{}",
    '{"event":}',
    '{"event":{}}',
    '{"event":null}',
    '{"event":5}',
    '{"event":[]}',
    '{"event":{"type":5}}',
    '{"event":{"type":null}}',
    '{"event":{"type":"count"}',
    '{"event":{"type":"count","x":NaN}}',
    '{"event":{"type":"a\u0000b"}}',
    '{"event":{"type":"a\nb"}}',
    b'{"event":{"type":"count","x":"\xff\xfe"}}',
    '{"event":{"type":"count","x":' + "[" * 65 + "]" * 65 + "}}",
    '{"event":{"type":"count","x":' + "[" * 100_000 + "]" * 100_000 + "}}",
    '{"event":{"type":"xstate.init"}}',
    '{"event":{"type":"xstate.after.1000.path.idle"}}',
    '{"event":{"type":"done.invoke.x"}}',
    '{"event":{"type":"error.platform.x"}}',
    '{"event":{"type":"statebacked.upgrade"}}',
    '{"event":{"ty\\u0070e":"xstate.init"}}',
    '{"event":{"type":"count","type":"xstate.init"}}',
    '{"event":"xstate.init"}',
]


@pytest.mark.parametrize("body", MALFORMED)
def test_malformed_event_is_refused_and_changes_nothing(counter, body):
    answer = counter.send(body)

    assert answer.outcome == (400, "invalid-parameter")
    assert len(counter.history()) == 1


@pytest.mark.parametrize(
    "event",
    [
        {"type": "echo", "text": '\u2028 \U0001f600 ‮ \\ " <script>'},
        {"type": "echo", "text": "a\u0000b\tc\nd"},
        {"type": "echo", "numbers": [0, -1.5, 1e300, 9007199254740991]},
        {"type": "echo", "__proto__x": 1, "constructor": {"prototype": 1}},
        {"type": "echo", "deep": [[[[[[[[[[[[[[[[[[[[{}]]]]]]]]]]]]]]]]]]]]},
        {"type": "echo", "long": "x" * 100_000},
    ],
)
def test_odd_values_come_back_as_they_were_sent(counter, event):
    answer = counter.send(json.dumps({"event": event}, indent=1))

    assert answer.status == 200
    assert answer.json["publicContext"]["event"] == event
    assert counter.history()[0]["event"] == event


def test_prototype_in_an_event_pollutes_nothing(counter):
    counter.send('{"event":{"type":"echo","__proto__":{"polluted":true}}}')

    answer = counter.send({"event": {"type": "echo"}})

    assert answer.json["publicContext"]["event"] == {"type": "echo"}


def test_body_over_the_limit_is_refused(counter):
    answer = counter.send({"event": {"type": "count", "x": "x" * 600_000}})

    assert answer.outcome == (413, "too-large")
    assert len(counter.history()) == 1


def test_machine_that_throws_tells_an_admin_why_and_others_only_the_request(counter, client):
    key = make_key(client, "events.write", "instances.write")

    as_admin = counter.send({"event": "fail"})
    as_user = counter.send({"event": "fail"}, headers=bearer(key))

    assert as_admin.outcome == (500, "machine-error")
    assert "kaboom" in as_admin.json["error"]
    assert as_user.outcome == (500, "machine-error")
    assert "kaboom" not in as_user.text
    assert as_user.headers["x-request-id"] in as_user.json["error"]
    assert len(counter.history()) == 1


def test_machine_authorizer_decides_with_the_claims_of_the_sender(counter):
    denied = counter.send({"event": "count"}, act={"sub": "stranger"})
    read = counter.client.request("GET", counter.path, act={"sub": "stranger"})
    created = counter.client.request(
        "POST", "/machines/path", {"slug": f"{counter.slug}x"}, act={"sub": "stranger"}
    )

    for answer in (denied, read, created):
        assert answer.outcome == (403, "rejected-by-machine-authorizer")
    assert len(counter.history()) == 1
    assert counter.client.request("GET", f"{counter.path}x").status == 404


def test_claims_are_recorded_with_the_transition_and_never_name_a_machine(counter, client):
    key = make_key(client, "events.write")
    sender = {"machineName": "m", "machineInstanceName": "i"}

    answer = counter.send(
        {"event": "count"}, headers=bearer(key, act={"sub": "u_9", "stateBackedSender": sender})
    )

    assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "suffix", "body", "scope"),
    [
        ("POST", "/i/{slug}/events", {"event": "count"}, "events.write"),
        ("GET", "/i/{slug}", None, "state.read"),
        ("POST", "", {"slug": "never"}, "instances.write"),
    ],
)
def test_token_without_the_scope_is_refused(counter, client, method, suffix, body, scope):
    key = make_key(client, "machines.read")
    path = "/machines/path" + suffix.format(slug=counter.slug)

    answer = client.request(method, path, body, headers=bearer(key))

    assert answer.outcome == (403, "missing-scope")
    assert scope in answer.json["error"]
    assert len(counter.history()) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ""},
        {"authorization": "Bearer "},
        {"authorization": "Bearer x.y.z"},
        {"authorization": "Basic dTpw"},
        {"authorization": "Bearer " + "a" * 20_000},
        {"authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0."},
    ],
)
def test_bad_token_is_403_with_a_challenge(counter, headers):
    answer = counter.send({"event": "count"}, headers=headers)

    assert answer.status == 403
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert len(counter.history()) == 1


def test_expired_token_and_deleted_key_stop_at_once(counter, client):
    key = make_key(client, "events.write")
    headers = bearer(key)
    assert counter.send({"event": "count"}, headers=headers).status == 200

    expired = counter.send({"event": "count"}, headers=bearer(key, for_s=-1))
    client.request("DELETE", f"/keys/{key['id']}")
    revoked = counter.send({"event": "count"}, headers=headers)

    assert expired.status == 403
    assert revoked.status == 403
    assert len(counter.history()) == 2


def test_other_orgs_objects_are_not_found(counter, client, server):
    other = client.request("POST", "/orgs", {"name": "Other"}).json["id"]
    token = run_manage_py("access_token", "--json", "--org", other, "--data", str(server.data_dir))
    headers = {
        "authorization": f"Bearer {json.loads(token)['accessToken']}",
        "x-statebacked-org-id": other,
    }

    answers = [
        counter.send({"event": "count"}, headers=headers),
        client.request("GET", counter.path, headers=headers),
        client.request("POST", "/machines/path", {"slug": "x"}, headers=headers),
    ]

    for answer in answers:
        assert answer.outcome == (404, "not-found")


@pytest.mark.parametrize(
    "slug", ["missing", "..", "a%2fb", "%00", "'--", "x" * 200, "%F0%9F%98%80"]
)
def test_unknown_names_are_not_found(client, slug):
    for method, path, body in (
        ("POST", f"/machines/path/i/{slug}/events", {"event": "count"}),
        ("GET", f"/machines/path/i/{slug}", None),
        ("POST", f"/machines/{slug}/i/x/events", {"event": "count"}),
    ):
        assert client.request(method, path, body).status == 404


@pytest.mark.parametrize("slug", ["", "a b", "a/b", "ä", "a\u0000", "x" * 129, "a\n", 5, None])
def test_bad_slug_of_a_new_instance_is_refused(client, slug):
    answer = client.request("POST", "/machines/path", {"slug": slug})

    assert answer.outcome == (400, "invalid-parameter")


@pytest.mark.parametrize("context", [5, "x", [], True])
def test_context_that_is_no_object_is_refused(client, context):
    answer = client.request("POST", "/machines/path", {"slug": "bad", "context": context})

    assert answer.outcome == (400, "invalid-parameter")
    assert client.request("GET", "/machines/path/i/bad").status == 404


def test_unknown_version_of_a_new_instance_is_refused(client):
    body = {"slug": "bad", "machineVersionId": "ver_unknown"}

    answer = client.request("POST", "/machines/path", body)

    assert answer.status == 400
    assert answer.json["parameter"] == "machineVersionId"


def test_machine_without_a_version_has_no_instances(client):
    client.request("POST", "/machines", {"slug": "empty"})

    answer = client.request("POST", "/machines/empty", {"slug": "x"})

    assert answer.outcome == (400, "invalid-parameter")
    assert "version" in answer.json["error"]


def test_repeated_request_with_its_idempotency_key_is_applied_once(counter):
    headers = {"idempotency-key": "pay-1"}

    first = counter.send({"event": "count"}, headers=headers)
    again = counter.send({"event": "count"}, headers=headers)
    other = counter.send({"event": "count"}, headers={"idempotency-key": "pay-2"})

    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json == first.json
    assert other.json["publicContext"] == {"n": 2}


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_bad_idempotency_key_is_refused(counter, key):
    answer = counter.send({"event": "count"}, headers={"idempotency-key": key})

    assert answer.outcome == (400, "invalid-parameter")
    assert len(counter.history()) == 1


def test_repeated_creation_with_its_idempotency_key_answers_the_instance(client):
    headers = {"idempotency-key": "create-1"}
    body = {"slug": f"c{next(_names)}"}

    first = client.request("POST", "/machines/path", body, headers=headers)
    again = client.request("POST", "/machines/path", body, headers=headers)
    other = client.request("POST", "/machines/path", body)

    assert again.json == first.json
    assert other.outcome == (409, "conflict")


def test_browsers_of_any_origin_may_call(client):
    answer = client.request(
        "OPTIONS",
        "/machines/path/i/x/events",
        headers={
            "origin": "https://example.org",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type",
        },
    )

    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type"


def test_wrong_method_names_the_right_ones(client, counter):
    answer = client.request("PATCH", f"{counter.path}/events")

    assert answer.status == 405
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize("size", [17 * 1024 * 1024])
def test_endless_bodies_are_refused_everywhere(client, size):
    answer = client.request("POST", "/machines", b"x" * size)

    assert answer.outcome == (413, "too-large")
