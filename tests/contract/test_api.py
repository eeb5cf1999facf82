"""What holds for every address below /api, whichever app answers it."""

import io
import json
import logging
import re
from typing import Any

import psycopg
import pytest
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest
from django.db import OperationalError
from django.urls import URLPattern
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from authz.permissions import Open, Scoped, SignedIn, rule_for
from authz.scopes import ALL
from machines.api import MachinesView
from statebacked_site.api import JSON_BODY_BYTES_MAX, ApiView
from statebacked_site.errors import bad_request
from statebacked_site.identifiers import SLUG
from statebacked_site.pooled_postgres.pool import NoConnection
from statebacked_site.urls import api as api_patterns
from tests.factories import Api, admin_api, assert_error, key_api, make_machine, make_org
from tests.fake_door import fake_door

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db

ALL_PATTERNS = list(api_patterns)
API_PATTERNS = [pattern for pattern in ALL_PATTERNS if pattern.name != "schema"]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def view_of(pattern: URLPattern) -> type[ApiView]:
    view: type[ApiView] = pattern.callback.cls  # type: ignore[attr-defined]  # DRF adds it
    return view


def path_of(pattern: URLPattern) -> str:
    """The pattern with a plausible name in the place of each parameter, without /api."""
    return "/" + re.sub(r"<str:\w+>", "some-name", str(pattern.pattern)).removeprefix("api/")


def methods_of(view: type[ApiView]) -> set[str]:
    return {name.upper() for name in view.http_method_names if hasattr(view, name)} - {"HEAD"}


OPERATIONS = [
    pytest.param(pattern, method, id=f"{method} {path_of(pattern)}")
    for pattern in API_PATTERNS
    for method in sorted(methods_of(view_of(pattern)))
]
PATHS = [pytest.param(pattern, id=path_of(pattern)) for pattern in API_PATTERNS]


# --- Access -------------------------------------------------------------------------------


@pytest.mark.parametrize(("pattern", "method"), OPERATIONS)
def test_every_operation_says_what_it_needs(pattern, method):
    view = view_of(pattern)

    assert issubclass(view, ApiView)
    rule = rule_for(view.rules, method)
    assert isinstance(rule, Scoped | SignedIn | Open)
    if isinstance(rule, Scoped):
        assert set(rule.any_of) <= ALL
        assert rule.any_of
    assert set(view.rules) == methods_of(view)


@pytest.mark.parametrize(("pattern", "method"), OPERATIONS)
def test_every_operation_turns_away_who_has_no_good_token(pattern, method):
    if isinstance(rule_for(view_of(pattern).rules, method), Open):
        return
    path = path_of(pattern)

    missing = Api().send(method, path, {})
    bad = Api("no.good.token").send(method, path, {})

    assert_error(missing, 403, "missing-user")
    assert missing["www-authenticate"] == "Bearer"
    assert_error(bad, 403, "missing-user")
    assert bad["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize(("pattern", "method"), OPERATIONS)
def test_every_operation_turns_away_who_has_other_scopes(pattern, method, fake_door):
    rule = rule_for(view_of(pattern).rules, method)
    if not isinstance(rule, Scoped):
        return
    org = make_org()

    r = key_api(org, *(ALL - set(rule.any_of))).send(method, path_of(pattern), {})

    assert_error(r, 403, "missing-scope")
    assert fake_door.calls == []


def test_few_operations_are_open():
    open_ones = {
        path_of(pattern)
        for pattern in API_PATTERNS
        if any(isinstance(rule, Open) for rule in view_of(pattern).rules.values())
    }

    assert open_ones == {"/uploads/some-name"}


def test_every_address_but_the_description_is_covered():
    assert [path_of(pattern) for pattern in ALL_PATTERNS if pattern not in API_PATTERNS] == [
        "/schema"
    ]


# --- Methods and paths --------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATHS)
def test_wrong_method_is_405_for_everybody(pattern):
    view = view_of(pattern)
    for method in (*METHODS, "OPTIONS", "TRACE", "NONSENSE"):
        if method in methods_of(view):
            continue
        r = Api().send(method, path_of(pattern))
        assert_error(r, 405, "method-not-allowed")
        assert set(r["allow"].split(", ")) - {"HEAD"} == methods_of(view)


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/machines/", "/machines/a/b", "/machines//i", "/%00", "/é", "/a" * 99],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_unknown_path_is_404(path, method):
    assert_error(Api().send(method, path), 404, "not-found")


def test_head_is_get_without_a_body():
    api = admin_api(make_org())

    r = api.send("HEAD", "/machines")

    assert (r.status_code, r.content) == (200, b"")
    assert_error(Api().get("/machines"), 403, "missing-user")


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "", "nonsense", "*/*;q=0"])
def test_answers_are_json_whatever_is_accepted(accept):
    org = make_org()
    api = admin_api(org)
    api.headers["accept"] = accept

    r = api.get("/machines", format="html")

    assert r.status_code == 200
    assert r["content-type"] == "application/json"


# --- Bodies -------------------------------------------------------------------------------


@pytest.fixture
def api():
    org = make_org()
    make_machine(org)
    return admin_api(org)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"slug": "a",}',
        b"{'slug': 'a'}",
        b"\xff\xfe",
        b'{"slug": "\xff"}',
        b'{"slug": "\\ud800"}',
        b'{"slug": NaN}',
        b'{"slug": 1e999}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\0",
        b'{"slug": "a"} trailing',
    ],
)
def test_body_that_is_not_json_is_refused(api, body):
    assert_error(api.send("POST", "/machines", body), 400, "invalid-parameter")


@pytest.mark.parametrize("body", [b"", b" ", b"\n\t "])
def test_empty_body_counts_as_an_empty_object(api, body):
    assert_error(api.send("POST", "/machines", body), 400, "invalid-parameter", "slug")
    assert api.send("POST", "/machines/order/v", body).status_code == 200


def test_body_that_is_too_large_is_refused(api):
    body = b'{"slug": "a", "x": "' + b"x" * JSON_BODY_BYTES_MAX + b'"}'

    assert_error(api.send("POST", "/machines", body), 413, "too-large")


def test_large_body_within_the_limit_is_read(api):
    body = b'{"slug": "a", "x": "' + b"x" * (JSON_BODY_BYTES_MAX - 30) + b'"}'

    assert api.send("POST", "/machines", body).status_code == 201


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"]
)
def test_body_of_another_type_is_refused(api, content_type):
    r = api.send("POST", "/machines", b'{"slug": "a"}', content_type)

    assert_error(r, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json;"]
)
def test_parameters_of_the_type_do_not_matter(api, content_type):
    assert api.send("POST", "/machines", b'{"slug": "a"}', content_type).status_code == 201


def without_length(api: Api, body: bytes) -> ASGIRequest:
    """A request as it comes in chunks."""
    headers = [(b"content-type", b"application/json")]
    headers += [(name.encode(), value.encode()) for name, value in api.headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/api/machines", "headers": headers}
    return ASGIRequest(scope, io.BytesIO(body))


def test_body_without_a_declared_length_is_read(api):
    r = MachinesView.as_view()(without_length(api, b'{"slug": "chunked"}'))

    assert r.status_code == 201
    assert r.data["slug"] == "chunked"


def test_body_without_a_declared_length_is_bounded(api, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000

    with pytest.raises(RequestDataTooBig) as refused:
        MachinesView.as_view()(without_length(api, b" " * 1001))

    r = bad_request(without_length(api, b""), refused.value)
    assert_error(r, 413, "too-large")


# --- Failures -----------------------------------------------------------------------------


def test_request_ids_differ_and_are_identifiers():
    first, second = Api().get("/machines"), Api().get("/machines")

    assert first["x-request-id"] != second["x-request-id"]
    assert first["x-request-id"].startswith("req_")
    assert SLUG.match(first["x-request-id"])


def test_a_bug_is_a_500_without_its_details(api, monkeypatch, caplog):
    def fail(*_args, **_kwargs):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("machines.lifecycle.create_machine", fail)

    with caplog.at_level(logging.ERROR):
        r = api.post("/machines", {"slug": "a"})

    message = assert_error(r, 500, "internal-error")
    assert "secret detail" not in message
    assert r["x-request-id"] in message
    assert "ZeroDivisionError: secret detail" in caplog.text
    assert r["x-request-id"] in caplog.text


def test_a_database_that_refuses_is_a_503(api, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OperationalError("database is locked")

    monkeypatch.setattr("machines.lifecycle.create_machine", fail)

    r = api.post("/machines", {"slug": "a"})

    message = assert_error(r, 503, "unavailable")
    assert "locked" not in message
    assert r["retry-after"] == "1"


def lost_connection(cause: Exception) -> OperationalError:
    error = OperationalError(str(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "status", "code"),
    [
        (psycopg.OperationalError("the connection is lost"), 504, "outcome-unknown"),
        (psycopg.errors.AdminShutdown("terminating connection"), 504, "outcome-unknown"),
        (psycopg.errors.LockNotAvailable("lock timeout"), 503, "unavailable"),
        (NoConnection("no connection: refused"), 503, "unavailable"),
    ],
)
def test_a_write_whose_end_nobody_knows_is_a_504(api, monkeypatch, cause, status, code):
    def fail(*_args, **_kwargs):
        raise lost_connection(cause)

    monkeypatch.setattr("machines.lifecycle.create_machine", fail)
    monkeypatch.setattr("machines.api.MachinesView.get", fail)

    assert_error(api.post("/machines", {"slug": "a"}), status, code)
    assert_error(api.get("/machines"), 503, "unavailable")


def test_unknown_host_is_refused_in_json(api):
    api.headers["host"] = "evil.example"

    assert_error(api.get("/machines"), 400, "invalid-parameter")


# --- Description --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return SchemaGenerator().get_schema(request=None, public=True)


def test_description_is_valid_openapi(schema):
    validate_schema(schema)


def test_description_is_served(client):
    r = client.get("/api/schema", headers={"accept": "application/vnd.oai.openapi+json"})

    assert r.status_code == 200
    assert json.loads(r.content)["info"]["title"] == "State Backed"
    assert r["x-request-id"]
    assert client.get("/api/schema").status_code == 200
    assert_error(client.get("/api/schema", headers={"accept": "a/b"}), 406, "not-acceptable")
    assert_error(client.post("/api/schema"), 405, "method-not-allowed")


@pytest.mark.parametrize(("pattern", "method"), OPERATIONS)
def test_every_operation_is_described(schema, pattern, method):
    path = "/" + re.sub(r"<str:(\w+)>", r"{\1}", str(pattern.pattern))

    operation = schema["paths"][path][method.lower()]

    assert operation["summary"]
    rule = rule_for(view_of(pattern).rules, method)
    if isinstance(rule, Scoped):
        assert operation["security"] == [{"BearerAuth": [scope]} for scope in rule.any_of]
        assert "403" in operation["responses"]
    success = [status for status in operation["responses"] if status.startswith("2")]
    assert len(success) == 1
    errors = set(operation["responses"]) - set(success)
    assert {"400", "default"} <= errors
    for status in errors:
        content = operation["responses"][status]["content"]["application/json"]
        assert content["schema"]["$ref"].endswith("/ErrorJson")


def test_confirmations_of_deleting_are_described(schema):
    for path, name in (
        ("/api/machines/{machine}", "DeleteMachine"),
        ("/api/machines/{machine}/i/{instance}", "DeleteInstance"),
    ):
        body = schema["paths"][path]["delete"]["requestBody"]
        assert body["content"]["application/json"]["schema"]["$ref"].endswith(f"/{name}")
    assert "requestBody" not in schema["paths"]["/api/keys/{key}"]["delete"]


def test_operation_ids_are_unique(schema):
    ids = [
        operation["operationId"] for path in schema["paths"].values() for operation in path.values()
    ]

    assert len(ids) == len(set(ids))
    assert "postEvents" in ids


def test_slugs_are_described_with_a_pattern_that_javascript_knows(schema):
    pattern = schema["components"]["schemas"]["CreateMachine"]["properties"]["slug"]["pattern"]

    assert r"\Z" not in pattern
    assert re.search(pattern, "order-1")
    assert not re.search(pattern, "a/b")
