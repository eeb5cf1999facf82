import json
from datetime import UTC, datetime
from typing import Any

import pytest

from authz.scopes import ALL
from instances import logs
from instances.engine.holding import Resume
from instances.models import Instance, Transition
from machines.confirmation import name_hmac
from tests.factories import (
    Api,
    admin_api,
    assert_error,
    key_api,
    make_instance,
    make_log_entry,
    make_machine,
    make_org,
    make_transition,
    make_version,
)
from tests.fake_door import fake_door

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db

INSTANCE = "/machines/order/i/order-1"
HMAC = "hmacSha256OfMachineInstanceNameWithMachineNameKey"


@pytest.fixture
def instance() -> Instance:
    return make_instance(make_machine(make_org(), with_version=True))


@pytest.fixture
def api(instance):
    return admin_api(instance.org)


def confirmation(**changes: object) -> dict[str, object]:
    return {
        "dangerDataWillBeDeletedForever": True,
        HMAC: name_hmac("order", "order-1"),
        **changes,
    }


# --- Lists --------------------------------------------------------------------------------


def test_instances_are_listed_with_version_and_status(instance, api):
    instance.status = Instance.Status.PAUSED
    instance.save(update_fields=["status"])

    r = api.get("/machines/order/i")

    version = instance.version
    assert r.json() == {
        "instances": [
            {
                "slug": "order-1",
                "createdAt": "2023-11-14T22:13:20.123Z",
                "status": "paused",
                "machineVersion": {
                    "id": version.public_id,
                    "createdAt": r.json()["instances"][0]["machineVersion"]["createdAt"],
                    "clientInfo": "v1",
                },
            }
        ]
    }


def test_instances_come_in_pages(instance, api):
    for number in range(119):
        make_instance(instance.machine, f"i-{number:03}")
    make_instance(make_machine(instance.org, "other", with_version=True), "not this one's")

    slugs: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.get("/machines/order/i", cursor=cursor).json()
        assert len(page["instances"]) <= 50
        slugs += [row["slug"] for row in page["instances"]]
        cursor = page.get("cursor")

    assert slugs == [f"i-{number:03}" for number in range(119)] + ["order-1"]


def test_list_reads_no_data_of_the_instances(instance, api, django_assert_max_num_queries):
    for number in range(20):
        make_instance(instance.machine, f"i-{number}")

    with django_assert_max_num_queries(6) as queries:
        api.get("/machines/order/i")

    assert not any('"instance"."context"' in query["sql"] for query in queries.captured_queries)


def test_deleted_instance_is_not_there(instance, api):
    instance.status = Instance.Status.DELETED
    instance.slug = "order-1~1"
    instance.save(update_fields=["status", "slug"])

    assert api.get("/machines/order/i").json() == {"instances": []}
    for name in ("order-1", "order-1~1"):
        assert_error(api.get(f"/machines/order/i/{name}/admin"), 404, "not-found")


# --- One instance -------------------------------------------------------------------------


def test_admin_sees_everything(instance, api):
    instance.state = '{"state":{"pay":"waiting"},"tags":["busy"],"done":false}'
    instance.context = '{"public":{"a":1},"secret":"x"}'
    instance.desired_version = make_version(instance.machine, "v2")
    instance.save()

    body = api.get(f"{INSTANCE}/admin").json()

    assert body["state"] == {"pay": "waiting"}
    assert body["context"] == {"public": {"a": 1}, "secret": "x"}
    assert body["tags"] == ["busy"]
    assert body["done"] is False
    assert body["status"] == "running"
    assert body["machineVersion"]["id"] == instance.version.public_id
    assert body["desiredMachineVersion"]["clientInfo"] == "v2"
    assert body["createdAt"] == "2023-11-14T22:13:20.123Z"


def test_desired_version_is_left_out_if_there_is_none(instance, api):
    assert "desiredMachineVersion" not in api.get(f"{INSTANCE}/admin").json()


@pytest.mark.parametrize(
    "context",
    [
        '{"a":1e400,"b":-0,"c":12345678901234567890123}',
        '{"lone":"\\ud800","nul":"\\u0000"}',
        '{"a":' * 2000 + "1" + "}" * 2000,
        '{"ключ":"значение","a":"\\"}"}',
    ],
)
def test_stored_json_goes_out_as_it_is(instance, api, context):
    instance.context = context
    instance.save(update_fields=["context"])

    r = api.get(f"{INSTANCE}/admin")

    assert r.status_code == 200
    assert context.encode() in r.content


@pytest.mark.parametrize("name", ["%00", "a%2Fb", "..", "é", "%FF", "a" * 129, "a%0A", "%27"])
def test_hostile_names_are_not_there(api, name, fake_door):
    for r in (
        api.get(f"/machines/order/i/{name}/admin"),
        api.get(f"/machines/order/i/{name}/events"),
        api.get(f"/machines/{name}/i"),
        api.get(f"/machines/{name}/i/order-1/admin"),
        api.put(f"/machines/order/i/{name}/status", {"status": "paused"}),
        api.put(f"/machines/order/i/{name}/v", {"targetMachineVersionId": "ver_x"}),
        api.post(f"/machines/{name}/upgrades", {"to": "ver_x"}),
        api.delete(f"/machines/order/i/{name}", confirmation()),
    ):
        assert_error(r, 404, "not-found")
    assert fake_door.calls == []


def test_instance_of_another_org_is_not_there(instance, fake_door):
    stranger = admin_api(make_org())

    for r in (
        stranger.get("/machines/order/i"),
        stranger.get(f"{INSTANCE}/admin"),
        stranger.get(f"{INSTANCE}/events"),
        stranger.put(f"{INSTANCE}/status", {"status": "paused"}),
        stranger.put(f"{INSTANCE}/v", {"targetMachineVersionId": instance.version.public_id}),
        stranger.post("/machines/order/upgrades", {"to": instance.version.public_id}),
        stranger.delete(INSTANCE, confirmation()),
        stranger.get("/logs", **{"from": "2020-01-01", "machine": "order"}),
        stranger.get("/logs", **{"from": "2020-01-01", "version": instance.version.public_id}),
    ):
        assert_error(r, 404, "not-found")
    assert fake_door.calls == []
    assert Instance.objects.count() == 1


@pytest.mark.parametrize(
    ("method", "path", "scopes"),
    [
        ("GET", "/machines/order/i", {"instances.read"}),
        ("GET", f"{INSTANCE}/admin", {"instances.admin"}),
        ("GET", f"{INSTANCE}/events", {"instances.admin"}),
        ("PUT", f"{INSTANCE}/status", {"instances.admin"}),
        ("PUT", f"{INSTANCE}/v", {"instances.write"}),
        ("POST", "/machines/order/upgrades", {"instances.admin"}),
        ("DELETE", INSTANCE, {"instances.admin"}),
        ("GET", "/logs", {"logs.read"}),
        ("POST", "/machines/order", {"instances.write"}),
        ("GET", INSTANCE, {"state.read"}),
        ("POST", f"{INSTANCE}/events", {"events.write", "instances.write"}),
    ],
)
def test_each_operation_has_its_scope(instance, fake_door, method, path, scopes):
    without = key_api(instance.org, *(ALL - scopes))

    message = assert_error(without.send(method, path, {}), 403, "missing-scope")

    assert fake_door.calls == []
    assert all(scope in message for scope in scopes)
    for scope in scopes:
        assert key_api(instance.org, scope).send(method, path, {}).status_code != 403


@pytest.mark.parametrize(
    ("method", "path", "names"),
    [
        ("POST", "/machines/order", {"operation": "create", "machine": "order"}),
        ("GET", INSTANCE, {"operation": "read", "machine": "order", "instance": "order-1"}),
        (
            "POST",
            f"{INSTANCE}/events",
            {"operation": "send", "machine": "order", "instance": "order-1"},
        ),
    ],
)
def test_events_are_left_to_the_event_path(api, fake_door, method, path, names):
    r = api.send(method, path, {"slug": "a", "event": "go"})

    assert r.status_code == 200
    assert fake_door.calls == [("respond", names)]
    assert r["x-request-id"]


# --- History ------------------------------------------------------------------------------


def test_transitions_are_listed_newest_first(instance, api):
    make_transition(instance, 1, kind=Transition.Kind.INIT, event='{"type":"xstate.init"}')
    make_transition(
        instance,
        2,
        event='{"type":"pay","amount":12345678901234567890123,"note":"\\ud800"}',
        state='{"state":{"pay":"waiting"},"tags":["x"],"done":false}',
    )

    r = api.get(f"{INSTANCE}/events")

    newest, creation = r.json()["transitions"]
    assert newest == {
        "createdAt": "2023-11-14T22:13:20.125Z",
        "state": {"pay": "waiting"},
        "event": json.loads('{"type":"pay","amount":12345678901234567890123,"note":"\\ud800"}'),
        "seq": 2,
        "kind": "client",
    }
    assert (creation["event"], creation["kind"]) == ({"type": "xstate.init"}, "init")
    assert b'"note":"\\ud800"' in r.content


def test_transitions_come_in_pages(instance, api):
    for seq in range(1, 121):
        make_transition(instance, seq)

    seqs: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.get(f"{INSTANCE}/events", cursor=cursor).json()
        seqs += [row["seq"] for row in page["transitions"]]
        cursor = page.get("cursor")

    assert seqs == list(range(120, 0, -1))


def test_new_transitions_do_not_shift_the_pages(instance, api):
    for seq in range(1, 61):
        make_transition(instance, seq)
    first = api.get(f"{INSTANCE}/events").json()
    make_transition(instance, 61)

    second = api.get(f"{INSTANCE}/events", cursor=first["cursor"]).json()

    assert [row["seq"] for row in second["transitions"]] == list(range(10, 0, -1))


@pytest.mark.parametrize("cursor", ["garbage!", "WyJhIl0", "W10", "Wy0xXQ", "\0"])
def test_bad_cursor_of_transitions_is_refused(api, cursor):
    r = api.get(f"{INSTANCE}/events", cursor=cursor)

    assert_error(r, 400, "invalid-parameter", "cursor")


# --- Pausing and deleting -----------------------------------------------------------------


def test_pausing_and_resuming_go_through_the_engine(instance, api, fake_door):
    paused = api.put(f"{INSTANCE}/status", {"status": "paused"})
    resumed = api.put(f"{INSTANCE}/status", {"status": "running"})

    assert (paused.status_code, paused.content) == (204, b"")
    assert resumed.status_code == 204
    assert fake_door.calls == [
        ("set_status", (instance.pk, Instance.Status.PAUSED)),
        ("set_status", (instance.pk, Instance.Status.RUNNING)),
    ]


@pytest.mark.parametrize("resume", list(Resume))
def test_resuming_says_when_timers_fire(instance, api, fake_door, resume):
    r = api.put(f"{INSTANCE}/status", {"status": "running", "timers": resume.label})

    assert r.status_code == 204
    how = (resume,) if resume else ()
    assert fake_door.calls == [("set_status", (instance.pk, Instance.Status.RUNNING, *how))]


@pytest.mark.parametrize(
    "body",
    [
        {"status": "paused", "timers": "original"},
        {"status": "running", "timers": "never"},
        {"status": "running", "timers": 1},
    ],
)
def test_other_choices_for_timers_are_refused(api, fake_door, body):
    assert_error(api.put(f"{INSTANCE}/status", body), 400, "invalid-parameter", "timers")
    assert fake_door.calls == []


def test_admin_state_says_since_when_it_is_paused(instance, api):
    assert "pausedAt" not in api.get(f"{INSTANCE}/admin").json()
    Instance.objects.filter(pk=instance.pk).update(status=1, paused_at=1_700_000_000_123)

    assert api.get(f"{INSTANCE}/admin").json()["pausedAt"] == "2023-11-14T22:13:20.123Z"


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (None, "status"),
        ({}, "status"),
        ({"status": "deleted"}, "status"),
        ({"status": "Paused"}, "status"),
        ({"status": 1}, "status"),
        ({"status": None}, "status"),
        ({"status": ["paused"]}, "status"),
        ({"status": {"a": 1}}, "status"),
        ({"status": "\0"}, "status"),
        ("paused", None),
    ],
)
def test_other_statuses_are_refused(api, fake_door, body, parameter):
    assert_error(api.put(f"{INSTANCE}/status", body), 400, "invalid-parameter", parameter)
    assert fake_door.calls == []


def test_instance_that_went_meanwhile_is_not_there(instance, api, fake_door, monkeypatch):
    monkeypatch.setattr("instances.engine.door.set_status", lambda *_: False)
    monkeypatch.setattr("instances.engine.door.delete_instance", lambda *_: False)

    assert_error(api.put(f"{INSTANCE}/status", {"status": "paused"}), 404, "not-found")
    assert_error(api.delete(INSTANCE, confirmation()), 404, "not-found")


def test_deleting_goes_through_the_engine(instance, api, fake_door):
    r = api.delete(INSTANCE, confirmation())

    assert (r.status_code, r.content) == (204, b"")
    assert fake_door.calls == [("delete_instance", instance.pk)]
    assert not Instance.objects.exists()


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (None, "dangerDataWillBeDeletedForever"),
        ({HMAC: name_hmac("order", "order-1")}, "dangerDataWillBeDeletedForever"),
        (confirmation(dangerDataWillBeDeletedForever=False), "dangerDataWillBeDeletedForever"),
        (confirmation(dangerDataWillBeDeletedForever=None), "dangerDataWillBeDeletedForever"),
        ({"dangerDataWillBeDeletedForever": True}, HMAC),
        (confirmation(**{HMAC: name_hmac("order-1", "order")}), HMAC),
        (confirmation(**{HMAC: name_hmac("order", "order")}), HMAC),
        (confirmation(**{HMAC: ""}), HMAC),
        (confirmation(**{HMAC: {"a": 1}}), HMAC),
    ],
)
def test_wrong_confirmation_names_the_parameter(api, fake_door, body, parameter):
    assert_error(api.delete(INSTANCE, body), 400, "invalid-parameter", parameter)
    assert fake_door.calls == []
    assert Instance.objects.count() == 1


# --- Logs ---------------------------------------------------------------------------------

T0 = 1_700_000_000_000  # 2023-11-14T22:13:20.000Z


def iso(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(api: Api, from_ms: int = T0, **query: str) -> Any:
    r = api.get("/logs", **{"from": iso(from_ms), **query})
    assert r.status_code == 200, r.content
    return r.json()


def test_a_log_line_says_where_it_comes_from(instance, api):
    make_log_entry(instance, "hello", T0 + 5)

    body = read(api)

    assert body["logs"] == [
        {
            "timestamp": "2023-11-14T22:13:20.005Z",
            "orgId": instance.org.public_id,
            "machineName": "order",
            "instanceName": "order-1",
            "machineVersionId": instance.version.public_id,
            "outputType": "stdout",
            "log": "hello",
        }
    ]
    assert body["maxTimestamp"] == "2023-11-14T22:13:20.006Z"


@pytest.mark.parametrize(
    ("level", "stream"),
    [
        ("log", "stdout"),
        ("info", "stdout"),
        ("debug", "stdout"),
        ("warn", "stderr"),
        ("error", "stderr"),
    ],
)
def test_levels_become_streams(instance, api, level, stream):
    make_log_entry(instance, "x", T0, level)

    assert read(api)["logs"][0]["outputType"] == stream


def test_from_and_to_are_inclusive(instance, api):
    for at in (-1, 0, 5, 10, 11):
        make_log_entry(instance, str(at), T0 + at)

    body = read(api, to=iso(T0 + 10))

    assert [line["log"] for line in body["logs"]] == ["0", "5", "10"]
    assert body["maxTimestamp"] == iso(T0 + 11)  # all of it is read: a watcher stops here


def test_filters(instance, api):
    other_machine = make_machine(instance.org, "other", with_version=True)
    make_log_entry(instance, "order-1", T0)
    make_log_entry(make_instance(instance.machine, "order-2"), "order-2", T0 + 1)
    newer = make_version(instance.machine)
    make_log_entry(make_instance(instance.machine, "order-3", version=newer), "order-3", T0 + 2)
    make_log_entry(make_instance(other_machine, "order-1"), "other's order-1", T0 + 3)

    def logged(**query: str) -> list[str]:
        return [line["log"] for line in read(api, T0, **query)["logs"]]

    assert logged() == ["order-1", "order-2", "order-3", "other's order-1"]
    assert logged(machine="order") == ["order-1", "order-2", "order-3"]
    assert logged(instance="order-1") == ["order-1", "other's order-1"]
    assert logged(machine="other", instance="order-1") == ["other's order-1"]
    assert logged(version=newer.public_id) == ["order-3"]
    assert logged(instance="order-9") == []


def test_other_orgs_lines_are_not_there(instance):
    make_log_entry(instance, "secret", T0)

    assert read(admin_api(make_org()))["logs"] == []


def test_nothing_new_answers_from_as_it_was_given(api):
    assert read(api, T0 + 7) == {"logs": [], "maxTimestamp": iso(T0 + 7)}


def test_reading_on_skips_and_repeats_nothing(instance, api):
    # 260 lines, three of them in each millisecond: no page may end within one.
    for number in range(260):
        make_log_entry(instance, str(number), T0 + number // 3)

    seen: list[str] = []
    from_ms, pages = T0, 0
    while page := read(api, from_ms)["logs"]:
        assert len(page) <= 100
        seen += [line["log"] for line in page]
        end = read(api, from_ms)["maxTimestamp"]
        from_ms = int(datetime.fromisoformat(end).timestamp() * 1000 + 0.5)
        pages += 1

    assert seen == [str(number) for number in range(260)]
    assert pages == 3


def test_crowded_millisecond_is_joined_and_not_lost(instance, api):
    other = make_instance(instance.machine, "order-2")
    for number in range(150):
        make_log_entry(instance, f"a{number}", T0)
        make_log_entry(other, f"b{number}", T0, "error")
    make_log_entry(instance, "later", T0 + 1)

    body = read(api)

    first, second = body["logs"]
    assert (first["instanceName"], first["outputType"]) == ("order-1", "stdout")
    assert first["log"] == "\n".join(f"a{number}" for number in range(150))
    assert second["log"] == "\n".join(f"b{number}" for number in range(150))
    assert body["maxTimestamp"] == iso(T0 + 1)


def test_lines_outlive_their_machine(instance, api):
    make_log_entry(instance, "x", T0)
    Instance.objects.all().delete()
    instance.machine.delete()

    assert read(api)["logs"][0]["machineName"] == ""


def test_time_without_a_zone_is_utc(instance, api):
    make_log_entry(instance, "x", T0)

    for since in ("2023-11-14", "2023-11-14T22:13:20", "2023-11-14T23:13:20+01:00"):
        assert len(api.get("/logs", **{"from": since}).json()["logs"]) == 1


def test_range_that_ends_before_it_begins_is_empty(api):
    assert read(api, T0, to=iso(T0 - 1)) == {"logs": [], "maxTimestamp": iso(T0)}


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({}, "from"),
        ({"from": ""}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"from": "1700000000000"}, "from"),
        ({"from": "2023-13-01"}, "from"),
        ({"from": "\0"}, "from"),
        ({"from": "2023-11-14", "to": "tomorrow"}, "to"),
        ({"from": "2023-11-14", "instance": "a/b"}, "instance"),
        ({"from": "2023-11-14", "instance": "\0"}, "instance"),
    ],
)
def test_bad_log_query_is_refused(api, query, parameter):
    assert_error(api.get("/logs", **query), 400, "invalid-parameter", parameter)


@pytest.mark.parametrize(
    "query", [{"machine": "no-such"}, {"machine": "\0"}, {"version": "ver_x"}, {"version": "\0"}]
)
def test_log_query_for_what_is_not_there(api, query):
    assert_error(api.get("/logs", **{"from": "2023-11-14"}, **query), 404, "not-found")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999Z"])
def test_ends_of_time_are_no_failure(instance, api, moment):
    make_log_entry(instance, "x", T0)

    assert api.get("/logs", **{"from": moment}).status_code == 200
    assert api.get("/logs", **{"from": "2023-11-14", "to": moment}).status_code == 200


def test_page_has_at_most_the_promised_entries():
    assert logs.ENTRIES_MAX == 100
