"""Rows and requests for tests: plain functions, each with what a test has to say about it."""

import json
import time
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

from django.test import Client
from joserfc import jws
from joserfc.jwk import OctKey

from authz import access_tokens, scopes
from authz.models import Key, Membership, Org, User
from authz.secrets import encrypt
from instances.models import Instance, LogEntry, Transition
from machines.models import (
    Machine,
    MachineVersion,
    MachineVersionMigration,
    MigrationCode,
    VersionCode,
)
from statebacked_site.identifiers import new_secret

# Django's test client adds `json()` and more to its responses; stubs call the class by no name.
Answer = Any

AUDIENCE = "https://api.statebacked.dev/"

NO_CODE: dict[str, Any] = {
    "source_gzip": b"",
    "source_sha256": "",
    "source_bytes": 0,
    "commonjs_gzip": b"",
    "externals": [],
}

_numbers = count(1)


def make_user(email: str = "") -> User:
    return User.objects.create_user(email or f"user-{next(_numbers)}@example.com")


def make_org(name: str = "Acme") -> Org:
    return Org.objects.create(name=name)


def make_member(org: Org, role: str = Membership.Role.ADMIN) -> User:
    user = make_user()
    Membership.objects.create(org=org, user=user, role=role)
    return user


def make_access_token(user: User, org: Org | None = None, hours: float = 1) -> str:
    return access_tokens.issue(user, org, "test", timedelta(hours=hours))


@dataclass
class SigningKey:
    """A key with its secret, to sign tokens with."""

    key: Key
    secret: str

    def sign(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A good token; a claim given as None is left out."""
        all_claims = {"aud": AUDIENCE, "exp": time.time() + 60, "act": {"sub": "end-user"}} | claims
        payload = {name: value for name, value in all_claims.items() if value is not None}
        return self.sign_bytes(json.dumps(payload).encode(), header)

    def sign_bytes(self, payload: bytes, header: dict[str, Any] | None = None) -> str:
        header = {"alg": "HS256", "kid": self.key.public_id} | (header or {})
        return jws.serialize_compact(
            header, payload, OctKey.import_key(self.secret), algorithms=["HS256", "HS384", "HS512"]
        )


def make_key(org: Org, *key_scopes: str) -> SigningKey:
    """A key with these scopes, by default all."""
    secret = new_secret("sbsec")
    key = Key.objects.create(
        org=org,
        name="test",
        secret_encrypted=encrypt(secret),
        scopes=sorted(key_scopes or scopes.ALL),
    )
    return SigningKey(key, secret)


def make_machine(org: Org, slug: str = "order", *, with_version: bool = False) -> Machine:
    machine = Machine.objects.create(org=org, slug=slug)
    if with_version:
        machine.current_version = make_version(machine)
        machine.save(update_fields=["current_version"])
    return machine


def make_version(machine: Machine, client_info: str = "v1") -> MachineVersion:
    version = MachineVersion.objects.create(
        machine=machine, client_info=client_info, xstate_major=5
    )
    VersionCode.objects.create(version=version, **NO_CODE)
    return version


def make_migration(
    from_version: MachineVersion, to_version: MachineVersion
) -> MachineVersionMigration:
    migration = MachineVersionMigration.objects.create(
        machine=from_version.machine, from_version=from_version, to_version=to_version
    )
    MigrationCode.objects.create(migration=migration, **NO_CODE)
    return migration


def make_instance(machine: Machine, slug: str = "order-1", **fields: Any) -> Instance:
    values = {
        "org": machine.org,
        "version": machine.current_version,
        "seq": 1,
        "ts": 1_700_000_000_123,
        "state": '{"state":"idle","tags":[],"done":false}',
        "context": "{}",
        "created_at": 1_700_000_000_123,
    }
    return Instance.objects.create(machine=machine, slug=slug, **(values | fields))


def make_transition(instance: Instance, seq: int, **fields: Any) -> Transition:
    values = {
        "commit_id": seq,
        "kind": Transition.Kind.CLIENT,
        "event": '{"type":"go"}',
        "state": '{"state":"idle","tags":[],"done":false}',
        "context": "{}",
        "duration_us": 1,
        "version_id": instance.version_id,
        "ts": instance.ts + seq,
        "created_at": instance.created_at + seq,
    }
    return Transition.objects.create(instance_id=instance.pk, seq=seq, **(values | fields))


def make_log_entry(instance: Instance, message: str, at_ms: int, level: str = "log") -> LogEntry:
    return LogEntry.objects.create(
        org_id=instance.org_id,
        machine_id=instance.machine_id,
        version_id=instance.version_id,
        instance_id=instance.pk,
        instance_slug=instance.slug,
        level=level,
        message=message,
        created_at=at_ms,
    )


class Api:
    """Sends requests below /api with one token and headers of its own."""

    def __init__(self, token: str | None = None, **headers: str) -> None:
        self.client = Client()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            self.headers["authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: str) -> Answer:
        return self.client.get(f"/api{path}", query, headers=self.headers)

    def send(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> Answer:
        """`body` is sent as it is if it is bytes, and as JSON otherwise; None is an empty body."""
        if body is None:
            body = b""
        elif not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return self.client.generic(method, f"/api{path}", body, content_type, headers=self.headers)

    def post(self, path: str, body: Any = None) -> Answer:
        return self.send("POST", path, body)

    def put(self, path: str, body: Any = None) -> Answer:
        return self.send("PUT", path, body)

    def patch(self, path: str, body: Any = None) -> Answer:
        return self.send("PATCH", path, body)

    def delete(self, path: str, body: Any = None) -> Answer:
        return self.send("DELETE", path, body)


def admin_api(org: Org) -> Api:
    """Requests of an admin of the org, by an access token."""
    return Api(make_access_token(make_member(org)))


def key_api(org: Org, *key_scopes: str) -> Api:
    """Requests with a token that a key with these scopes has signed."""
    return Api(make_key(org, *key_scopes).sign())


def assert_error(response: Answer, status: int, code: str, parameter: str | None = None) -> str:
    """Check the shape that every error has; returns its message."""
    assert response.status_code == status, response.content
    assert response["content-type"] == "application/json"
    assert response["x-request-id"]
    body = json.loads(response.content)
    assert body["code"] == code
    assert body.get("parameter") == parameter
    assert set(body) <= {"error", "code", "parameter"}
    message: str = body["error"]
    assert message
    assert "Traceback" not in message
    return message
