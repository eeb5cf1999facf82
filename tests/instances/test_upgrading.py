"""The desired version of instances. What an upgrade does stands in the engine's tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from instances import upgrading
from instances.errors import InstanceNotFound, NoMigrationPath
from instances.models import Instance
from instances.upgrading import set_desired_version, set_desired_versions
from machines.models import Machine, MachineVersion
from tests.factories import (
    Api,
    admin_api,
    assert_error,
    key_api,
    make_instance,
    make_machine,
    make_migration,
    make_org,
    make_version,
)
from tests.fake_door import fake_door

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db

PATH = "/machines/order/i/order-1/v"
UPGRADES = "/machines/order/upgrades"
DONE = '{"state":"paid","tags":[],"done":true}'


@pytest.fixture
def machine() -> Machine:
    return make_machine(make_org(), with_version=True)


@pytest.fixture
def old(machine) -> MachineVersion:
    version = machine.current_version
    assert version is not None
    return version


@pytest.fixture
def new(old) -> MachineVersion:
    """A version to which a migration leads from the old one."""
    version = make_version(old.machine, "v2")
    make_migration(old, version)
    return version


@pytest.fixture
def instance(machine) -> Instance:
    return make_instance(machine)


@pytest.fixture
def api(machine) -> Api:
    return admin_api(machine.org)


def target(version: MachineVersion) -> dict[str, Any]:
    return {"targetMachineVersionId": version.public_id}


def desired() -> dict[str, int | None]:
    return dict(Instance.objects.values_list("slug", "desired_version_id"))


# --- One instance -------------------------------------------------------------------------


def test_desired_version_is_noted_and_the_engine_told(instance, old, new, api, fake_door):
    r = api.put(PATH, target(new))

    assert (r.status_code, r.content) == (201, b"")
    instance.refresh_from_db()
    assert (instance.version, instance.desired_version) == (old, new)
    assert fake_door.calls == [("instance_outdated", instance.pk)]
    admin = api.get("/machines/order/i/order-1/admin").json()
    assert admin["machineVersion"]["id"] == old.public_id
    assert admin["desiredMachineVersion"]["id"] == new.public_id


def test_a_chain_of_migrations_is_a_path(instance, new, api, fake_door):
    newest = make_version(new.machine, "v3")
    make_migration(new, newest)

    assert api.put(PATH, target(newest)).status_code == 201
    assert desired() == {"order-1": newest.pk}


def test_the_version_that_it_has_takes_the_wish_back(instance, old, new, api, fake_door):
    api.put(PATH, target(new))

    assert api.put(PATH, target(old)).status_code == 201
    assert desired() == {"order-1": None}
    assert fake_door.calls == [("instance_outdated", instance.pk)] * 2
    assert "desiredMachineVersion" not in api.get("/machines/order/i/order-1/admin").json()


def test_a_later_wish_replaces_an_earlier_one(instance, old, new, api, fake_door):
    other = make_version(old.machine, "other")
    make_migration(old, other)
    api.put(PATH, target(new))

    assert api.put(PATH, target(other)).status_code == 201
    assert desired() == {"order-1": other.pk}


def test_paused_instance_may_be_given_a_version(instance, new, api, fake_door):
    Instance.objects.update(status=Instance.Status.PAUSED)

    assert api.put(PATH, target(new)).status_code == 201
    assert desired() == {"order-1": new.pk}


def test_without_a_path_nothing_changes(instance, old, new, api, fake_door):
    apart = make_version(old.machine, "apart")
    make_migration(apart, old)
    api.put(PATH, target(new))

    message = assert_error(api.put(PATH, target(apart)), 400, "no-migration-path")
    assert old.public_id in message
    assert apart.public_id in message
    assert desired() == {"order-1": new.pk}
    assert len(fake_door.calls) == 1


@pytest.mark.parametrize("value", ["ver_unknown", "é", "..", "a" * 5000, "' OR 1=1 --"])
def test_unknown_version_is_not_there(instance, api, fake_door, value):
    r = api.put(PATH, {"targetMachineVersionId": value})

    assert_error(r, 404, "not-found", "targetMachineVersionId")
    assert fake_door.calls == []


def test_versions_of_other_machines_and_orgs_are_not_there(instance, machine, api, fake_door):
    others = [
        make_version(make_machine(machine.org, "other")),
        make_version(make_machine(make_org())),
    ]

    for other in others:
        assert_error(api.put(PATH, target(other)), 404, "not-found", "targetMachineVersionId")
    assert desired() == {"order-1": None}
    assert fake_door.calls == []


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"targetMachineVersionId": None},
        {"targetMachineVersionId": ""},
        {"targetMachineVersionId": 5},
        {"targetMachineVersionId": ["ver_x"]},
        {"targetMachineVersionId": "ver_\0"},
        {"machineVersionId": "ver_x"},
    ],
)
def test_body_without_a_version_id_is_refused(instance, api, fake_door, body):
    assert_error(api.put(PATH, body), 400, "invalid-parameter", "targetMachineVersionId")
    assert fake_door.calls == []


@pytest.mark.parametrize("body", [b"{", b"[]", b"5", b"\0", b"\xff"])
def test_body_that_is_no_object_is_refused(instance, api, fake_door, body):
    assert_error(api.put(PATH, body), 400, "invalid-parameter")
    assert fake_door.calls == []


def test_deleted_and_missing_instances_are_not_there(instance, new, api, fake_door):
    Instance.objects.update(status=Instance.Status.DELETED, slug="order-1~1")

    for name in ("order-1", "order-1~1", "nobody"):
        r = api.put(f"/machines/order/i/{name}/v", target(new))
        assert_error(r, 404, "not-found")
    assert desired() == {"order-1~1": None}
    assert fake_door.calls == []


def test_a_repeated_key_is_applied_once(instance, old, new, api, fake_door):
    keyed = Api(api.headers["authorization"].removeprefix("Bearer "))
    keyed.headers["idempotency-key"] = "k-1"
    first = keyed.put(PATH, target(new))
    api.put(PATH, target(old))

    again = keyed.put(PATH, target(new))

    assert (first.status_code, again.status_code) == (201, 201)
    assert again["idempotent-replayed"] == "true"
    assert desired() == {"order-1": None}
    assert_error(keyed.put(PATH, target(old)), 422, "idempotency-key-reused")


def test_a_key_for_production_may_upgrade_an_instance(instance, new, fake_door):
    api = key_api(new.machine.org, "events.write", "state.read", "instances.write")

    assert api.put(PATH, target(new)).status_code == 201


def test_path_is_checked_again_from_the_version_that_it_has_meanwhile(instance, new, fake_door):
    newest = make_version(new.machine, "v3")
    make_migration(new, newest)
    Instance.objects.update(version=new)  # `instance` was read before

    set_desired_version(instance, newest)

    assert desired() == {"order-1": newest.pk}


def test_no_path_from_the_version_that_it_has_meanwhile(instance, old, new, fake_door):
    other = make_version(old.machine, "other")
    make_migration(old, other)
    Instance.objects.update(version=new)

    with pytest.raises(NoMigrationPath):
        set_desired_version(instance, other)

    assert desired() == {"order-1": None}
    assert fake_door.calls == []


def test_an_upgrade_that_came_first_leaves_nothing_to_wish(instance, new, fake_door):
    Instance.objects.update(version=new)

    set_desired_version(instance, new)

    assert desired() == {"order-1": None}


def test_an_instance_that_is_deleted_meanwhile_is_not_there(instance, new, fake_door):
    Instance.objects.update(status=Instance.Status.DELETED)

    with pytest.raises(InstanceNotFound):
        set_desired_version(instance, new)

    assert desired() == {"order-1": None}


# --- Many instances -----------------------------------------------------------------------


def keys_of(*instances: Instance) -> list[tuple[int, str]]:
    return [(instance.machine_id, instance.slug) for instance in instances]


def test_all_instances_of_a_version_are_changed(machine, old, new, api, fake_door):
    first, second = (make_instance(machine, f"order-{n}") for n in (1, 2))
    make_instance(machine, "new", version=new)

    r = api.post(UPGRADES, {"from": old.public_id, "to": new.public_id})

    assert r.status_code == 200
    assert r.json() == {"matched": 2, "changed": 2}
    assert desired() == {"order-1": new.pk, "order-2": new.pk, "new": None}
    assert fake_door.calls == [("instances_outdated", keys_of(first, second))]


def test_without_from_every_version_with_a_path_is_meant(machine, old, new, api, fake_door):
    newest = make_version(machine, "v3")
    make_migration(new, newest)
    apart = make_version(machine, "apart")
    for version in (old, new, newest, apart):
        make_instance(machine, f"on-{version.client_info}", version=version)

    r = api.post(UPGRADES, {"to": newest.public_id})

    assert r.json() == {"matched": 2, "changed": 2}
    assert desired() == {"on-v1": newest.pk, "on-v2": newest.pk, "on-v3": None, "on-apart": None}


def test_paused_ones_are_changed_and_deleted_and_final_ones_not(machine, new, api, fake_door):
    make_instance(machine, "paused", status=Instance.Status.PAUSED)
    make_instance(machine, "deleted", status=Instance.Status.DELETED)
    make_instance(machine, "done", state=DONE)
    make_instance(
        machine, "words", state='{"state":"idle","tags":["\\"done\\":true}"],"done":false}'
    )

    r = api.post(UPGRADES, {"to": new.public_id})

    assert r.json() == {"matched": 2, "changed": 2}
    assert desired() == {"paused": new.pk, "words": new.pk, "deleted": None, "done": None}


def test_a_repetition_changes_nothing(machine, old, new, api, fake_door):
    make_instance(machine, "order-1")
    make_instance(machine, "order-2", desired_version=make_version(machine, "other"))
    api.post(UPGRADES, {"to": new.public_id})
    fake_door.calls.clear()

    r = api.post(UPGRADES, {"to": new.public_id})

    assert r.json() == {"matched": 2, "changed": 0}
    assert desired() == {"order-1": new.pk, "order-2": new.pk}
    assert fake_door.calls == []


def test_the_caller_goes_on_with_the_cursor(machine, old, new, api, fake_door):
    for number in range(5):
        make_instance(machine, f"order-{number}", version=new if number == 1 else old)
    other = make_machine(machine.org, "other", with_version=True)
    make_instance(other)

    answers = []
    body = {"from": old.public_id, "to": new.public_id, "limit": 2}
    while True:
        answers.append(api.post(UPGRADES, body).json())
        if "cursor" not in answers[-1]:
            break
        body["cursor"] = answers[-1]["cursor"]

    assert [answer["matched"] for answer in answers] == [1, 2, 1]
    assert [answer["changed"] for answer in answers] == [1, 2, 1]
    assert [key for _, keys in fake_door.calls for _, key in keys] == [
        "order-0",
        "order-2",
        "order-3",
        "order-4",
    ]


def test_absent_and_null_are_one(machine, new, api, fake_door):
    make_instance(machine)

    for cursor in (None, ""):
        body = {"from": None, "to": new.public_id, "limit": None, "cursor": cursor}
        assert api.post(UPGRADES, body).json()["matched"] == 1


def test_a_chunk_costs_few_statements_of_which_none_grows(
    machine, new, api, fake_door, monkeypatch, django_assert_max_num_queries
):
    monkeypatch.setattr(upgrading, "CHUNK", 10)
    for number in range(20):
        make_instance(machine, f"order-{number}")

    with django_assert_max_num_queries(6 + 2 * 5) as queries:
        r = set_desired_versions(None, new, after_id=0, limit=100)

    assert (r.matched, r.changed, r.last_id) == (20, 20, None)
    assert not any('"instance"."context"' in query["sql"] for query in queries.captured_queries)


def test_without_a_path_no_instance_is_changed(machine, old, api, fake_door):
    make_instance(machine)
    apart = make_version(machine, "apart")
    make_migration(apart, make_version(machine, "further"))

    for body in ({"to": apart.public_id}, {"from": old.public_id, "to": apart.public_id}):
        message = assert_error(api.post(UPGRADES, body), 400, "no-migration-path")
        assert apart.public_id in message
    assert desired() == {"order-1": None}
    assert fake_door.calls == []


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"to": None}, "to"),
        ({"to": 5}, "to"),
        ({"to": "ver_\0"}, "to"),
        ({"from": ""}, "from"),
        ({"from": ["ver_x"]}, "from"),
        ({"limit": 0}, "limit"),
        ({"limit": -1}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 1e30}, "limit"),
        ({"cursor": "garbage!"}, "cursor"),
        ({"cursor": "WyJhIl0"}, "cursor"),  # ["a"]
        ({"cursor": "Wy0xXQ"}, "cursor"),  # [-1]
        ({"cursor": "WzkyMjMzNzIwMzY4NTQ3NzU4MDhd"}, "cursor"),  # [9223372036854775808]
        ({"cursor": 5}, "cursor"),
    ],
)
def test_bad_requests_are_refused(machine, new, api, fake_door, change, parameter):
    make_instance(machine)

    r = api.post(UPGRADES, {"to": new.public_id, **change})

    assert_error(r, 400, "invalid-parameter", parameter)
    assert desired() == {"order-1": None}
    assert fake_door.calls == []


def test_versions_of_others_are_not_there(machine, old, new, api, fake_door):
    make_instance(machine)
    other = make_version(make_machine(machine.org, "other")).public_id

    for version in (other, "ver_unknown"):
        assert_error(api.post(UPGRADES, {"to": version}), 404, "not-found", "to")
        body = {"from": version, "to": new.public_id}
        assert_error(api.post(UPGRADES, body), 404, "not-found", "from")
    same = {"from": new.public_id, "to": new.public_id}
    assert_error(api.post(UPGRADES, same), 400, "invalid-parameter", "to")
    assert desired() == {"order-1": None}
    assert fake_door.calls == []


def test_a_key_for_production_may_not_upgrade_all(machine, new, fake_door):
    make_instance(machine)
    api = key_api(machine.org, "events.write", "state.read", "instances.write")

    assert_error(api.post(UPGRADES, {"to": new.public_id}), 403, "missing-scope")
    assert desired() == {"order-1": None}


# --- Against the engine's commits ---------------------------------------------------------


@contextmanager
def locked(instance: Instance) -> Iterator[threading.Event]:
    """The instance's row is locked by somebody, as during a commit, until the event is set."""
    is_locked, may_end = threading.Event(), threading.Event()

    def commit() -> None:
        try:
            with transaction.atomic():
                Instance.objects.select_for_update().get(pk=instance.pk)
                is_locked.set()
                may_end.wait(10)
        finally:
            connection.close()

    thread = threading.Thread(target=commit)
    thread.start()
    assert is_locked.wait(10)
    yield may_end
    may_end.set()
    thread.join()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer")
@pytest.mark.django_db(transaction=True)
def test_a_row_that_is_locked_is_waited_for_while_no_other_is_locked(machine, new, fake_door):
    free = make_instance(machine, "free")
    busy = make_instance(machine, "busy")
    last = make_instance(machine, "last")
    results = []

    def upgrade() -> None:
        try:
            results.append(set_desired_versions(None, new, after_id=0))
        finally:
            connection.close()

    with locked(busy) as may_end:
        thread = threading.Thread(target=upgrade)
        thread.start()
        for instance in (free, last):
            while Instance.objects.get(pk=instance.pk).desired_version_id is None:
                assert thread.is_alive()
        with transaction.atomic():  # raises if it is locked
            Instance.objects.select_for_update(nowait=True).get(pk=free.pk)
        assert thread.is_alive()
        may_end.set()
        thread.join()

    assert [(r.matched, r.changed) for r in results] == [(3, 3)]
    assert desired() == {"free": new.pk, "busy": new.pk, "last": new.pk}
