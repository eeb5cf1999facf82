"""Migrations between versions; what they share with versions stands in test_publishing.py."""

import gzip
import json
import tracemalloc
from typing import Any

import pytest

from authz.scopes import ALL
from machines import lifecycle
from machines.migration_body import MIGRATION_BODY_BYTES_MAX
from machines.models import (
    CodeUpload,
    Machine,
    MachineVersion,
    MachineVersionMigration,
    MigrationCode,
)
from statebacked_site.api import JSON_BODY_BYTES_MAX
from tests.factories import (
    Api,
    admin_api,
    assert_error,
    key_api,
    make_machine,
    make_migration,
    make_org,
    make_version,
)
from tests.fake_door import accept, fake_door
from tests.machines.test_publishing import SOURCE, PublishingMigration

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db

PATH = "/machines/order/migrations"


@pytest.fixture
def versions() -> list[MachineVersion]:
    machine = make_machine(make_org())
    return [make_version(machine, f"v{number}") for number in (1, 2)]


@pytest.fixture
def api(versions) -> Api:
    return admin_api(versions[0].machine.org)


@pytest.fixture
def ids(versions) -> dict[str, Any]:
    return {
        "fromMachineVersionId": versions[0].public_id,
        "toMachineVersionId": versions[1].public_id,
    }


# --- Creating -----------------------------------------------------------------------------


def test_three_steps_make_a_migration(versions, api, fake_door, django_capture_on_commit_callbacks):
    publish = PublishingMigration(api).provision()
    uploaded = publish.upload_gzip(gzip.compress(SOURCE))
    with django_capture_on_commit_callbacks(execute=True):
        # As the published client finalizes: with an empty body.
        r = publish.finalize()

    assert (uploaded.status_code, uploaded.content) == (204, b"")
    assert r.status_code == 200
    migration = MachineVersionMigration.objects.get()
    assert r.json() == {"machineVersionMigrationId": migration.public_id}
    assert migration.public_id.startswith("mig_")
    assert migration.machine == versions[0].machine
    assert [migration.from_version, migration.to_version] == versions
    assert migration.created_by is not None
    code = MigrationCode.objects.get()
    assert gzip.decompress(code.source_gzip) == SOURCE
    assert gzip.decompress(code.commonjs_gzip).decode() == accept(SOURCE).commonjs
    assert (code.source_bytes, code.externals) == (len(SOURCE), [])
    assert not CodeUpload.objects.exists()
    assert MachineVersion.objects.count() == 2
    assert fake_door.calls == [("check_migration", SOURCE)]


def test_there_may_be_several_between_two_versions_and_a_way_back(api, ids, fake_door):
    for body in (ids, ids, dict(zip(ids, reversed(ids.values()), strict=True))):
        signed_id = api.post(PATH, body).json()["machineVersionMigrationId"]
        CodeUpload.objects.update(source_gzip=gzip.compress(SOURCE))
        assert api.put(f"{PATH}/{signed_id}").status_code == 200

    assert MachineVersionMigration.objects.count() == 3


@pytest.mark.parametrize("name", ["fromMachineVersionId", "toMachineVersionId"])
@pytest.mark.parametrize("value", [None, "", 5, True, [], {}, ["ver_x"], "\0", "ver_\0"])
def test_what_is_no_version_id_is_refused(api, ids, name, value):
    assert_error(api.post(PATH, {**ids, name: value}), 400, "invalid-parameter", name)
    assert not CodeUpload.objects.exists()


@pytest.mark.parametrize("name", ["fromMachineVersionId", "toMachineVersionId"])
@pytest.mark.parametrize("value", ["ver_unknown", "é", "..", "a" * 5000, "' OR 1=1 --"])
def test_unknown_version_is_not_there(api, ids, name, value):
    assert_error(api.post(PATH, {**ids, name: value}), 404, "not-found", name)
    assert not CodeUpload.objects.exists()
    assert api.post(PATH, ids).status_code == 200


def test_versions_of_other_machines_and_orgs_are_not_there(api, versions, ids):
    others = [
        make_version(make_machine(versions[0].machine.org, "other")),
        make_version(make_machine(make_org())),
    ]

    for other in others:
        for name in ids:
            r = api.post(PATH, {**ids, name: other.public_id})
            assert_error(r, 404, "not-found", name)
    assert not CodeUpload.objects.exists()


def test_migration_leads_to_another_version(api, ids):
    same = {**ids, "toMachineVersionId": ids["fromMachineVersionId"]}

    assert_error(api.post(PATH, same), 400, "invalid-parameter", "toMachineVersionId")


@pytest.mark.parametrize("body", [{"client": 1}, [], "text", 5, None])
def test_finalizing_takes_nothing_but_an_object(api, fake_door, versions, body):
    publish = PublishingMigration(api).provision()
    publish.upload()

    r = publish.finalize(b"null" if body is None else body)

    if isinstance(body, dict):
        assert r.status_code == 200
    else:
        assert_error(r, 400, "invalid-parameter")
        assert fake_door.calls == []
        assert publish.finalize(b"").status_code == 200


# --- The body with the code in it ---------------------------------------------------------


def as_the_client_says(ids: dict[str, Any], packed: bytes) -> bytes:
    """What JSON.stringify makes of a Uint8Array."""
    code = ",".join(f'"{index}":{byte}' for index, byte in enumerate(packed))
    return f'{{"gzippedCode":{{{code}}},{json.dumps(ids)[1:]}'.encode()


def test_body_may_hold_the_whole_code(api, ids):
    body = as_the_client_says(ids, b"\xff" * (1024 * 1024))
    assert len(body) > 13_000_000

    tracemalloc.start()
    r = api.send("POST", f"{PATH}?gzip", body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert r.status_code == 200
    # A few copies of the body, and not millions of Python's objects.
    assert peak < 5 * len(body)


def test_body_may_hold_the_code_as_text(api, ids):
    r = api.post(PATH, {"code": "export const a = '\u00e9\0';" * 300_000, **ids})

    assert r.status_code == 200


def test_large_body_with_an_idempotency_key_is_applied_once(api, ids):
    api.headers["idempotency-key"] = "k-1"
    body = as_the_client_says(ids, b"\x1f" * 200_000)

    first, second = (api.send("POST", f"{PATH}?gzip", body) for _ in range(2))

    assert first.json() == second.json()
    assert second["idempotent-replayed"] == "true"
    assert CodeUpload.objects.count() == 1


def test_body_that_is_too_large_is_refused(api, ids, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    fits = json.dumps(ids).encode()[:-1] + b', "code": "'

    for size, status in ((MIGRATION_BODY_BYTES_MAX, 200), (MIGRATION_BODY_BYTES_MAX + 1, 413)):
        body = fits + b"x" * (size - len(fits) - 2) + b'"}'
        r = api.send("POST", PATH, body)
        assert r.status_code == status
    assert_error(r, 413, "too-large")
    assert CodeUpload.objects.count() == 1


def test_ids_that_are_too_large_are_refused(api, ids):
    r = api.post(PATH, {**ids, "toMachineVersionId": [1] * JSON_BODY_BYTES_MAX})

    assert_error(r, 413, "too-large")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b'{"fromMachineVersionId": "a",}',
        b"{'fromMachineVersionId': 'a'}",
        b'{"code": NaN}',
        b'{"fromMachineVersionId": NaN}',
        b'{"fromMachineVersionId": "\xff"}',
        b'{"fromMachineVersionId": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"fromMachineVersionId":' + b"[" * 50_000,
        b"\0",
        b"{} trailing",
    ],
)
def test_body_that_is_no_object_is_refused(api, body):
    assert_error(api.send("POST", PATH, body), 400, "invalid-parameter")
    assert not CodeUpload.objects.exists()


@pytest.mark.parametrize("body", [b"", b" ", b"{}"])
def test_empty_body_lacks_the_versions(api, body):
    assert_error(api.send("POST", PATH, body), 400, "invalid-parameter", "fromMachineVersionId")


# --- Listing ------------------------------------------------------------------------------


def test_migrations_are_listed_newest_first(api, versions):
    old, new = versions
    first, second = (make_migration(a, b) for a, b in ((old, new), (new, old)))

    listed = api.get(PATH).json()["migrations"]

    assert [migration["id"] for migration in listed] == [second.public_id, first.public_id]
    assert set(listed[0]) == {"id", "createdAt", "fromMachineVersion", "toMachineVersion"}
    assert listed[1]["fromMachineVersion"]["id"] == old.public_id
    assert listed[1]["toMachineVersion"]["clientInfo"] == "v2"
    assert listed[0]["createdAt"].endswith("Z")


def test_migrations_come_in_pages(api, versions, django_assert_max_num_queries):
    old, new = versions
    for _ in range(60):
        make_migration(old, new)
    elsewhere = make_machine(make_org())
    make_migration(make_version(elsewhere), make_version(elsewhere))

    with django_assert_max_num_queries(8):
        first = api.get(PATH).json()
    second = api.get(PATH, cursor=first["cursor"]).json()

    listed = [migration["id"] for page in (first, second) for migration in page["migrations"]]
    assert [len(page["migrations"]) for page in (first, second)] == [50, 10]
    assert len(set(listed)) == 60
    assert "cursor" not in second


def test_a_machine_without_migrations_lists_none(api):
    assert api.get(PATH).json() == {"migrations": []}


# --- Access -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", PATH, "machine-versions.read"),
        ("POST", PATH, "machine-versions.write"),
        ("PUT", f"{PATH}/x", "machine-versions.write"),
    ],
)
def test_each_operation_has_its_scope(versions, ids, method, path, scope):
    org = versions[0].machine.org

    message = assert_error(
        key_api(org, *(ALL - {scope})).send(method, path, ids), 403, "missing-scope"
    )
    assert scope in message
    assert key_api(org, scope).send(method, path, ids).status_code != 403


def test_another_orgs_machine_and_a_missing_one_are_not_there(versions, ids, fake_door):
    stranger = admin_api(make_org())

    for r in (
        stranger.get(PATH),
        stranger.post(PATH, ids),
        stranger.put(f"{PATH}/x", {}),
        stranger.get("/machines/no-such/migrations"),
        stranger.post("/machines/no-such/migrations", ids),
        stranger.put("/machines/no-such/migrations/x", {}),
        stranger.get("/machines/%00/migrations"),
    ):
        assert_error(r, 404, "not-found")
    assert not CodeUpload.objects.exists()
    assert fake_door.calls == []


def test_migrations_go_with_their_machine(versions, api, fake_door):
    publish = PublishingMigration(api).provision()
    publish.upload()
    publish.finalize()
    publish.provision().upload()

    lifecycle.delete_machine(versions[0].machine)

    assert not Machine.objects.exists()
    assert not MachineVersionMigration.objects.exists()
    assert not MigrationCode.objects.exists()
    assert not CodeUpload.objects.exists()


def test_finalizing_after_the_machine_was_made_anew_is_not_there(versions, api, fake_door):
    org = versions[0].machine.org
    publish = PublishingMigration(api).provision()
    publish.upload()
    versions[0].machine.delete()
    make_machine(org)

    assert_error(publish.finalize(), 404, "not-found")
