"""Schedules by the API: who may make them, what is refused, and what becomes due."""

import json
import time

import pytest

from authz.scopes import ALL
from instances.models import Instance
from machines.schedules import due, service
from machines.schedules.models import Schedule
from tests.factories import (
    admin_api,
    assert_error,
    key_api,
    make_instance,
    make_machine,
    make_org,
)

pytestmark = pytest.mark.django_db

SCHEDULES = "/machines/order/schedules"
SEND = {"cron": "0 9 * * *", "send": {"slug": "order-1", "event": "remind"}}
CREATE = {
    "cron": "0 9 * * *",
    "timeZone": "Europe/Berlin",
    "create": {"slug": "report-{date}", "context": {"n": 1}},
}


@pytest.fixture
def machine():
    return make_machine(make_org(), with_version=True)


@pytest.fixture
def api(machine):
    return admin_api(machine.org)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def make_due(schedule: Schedule, planned_ms: int) -> None:
    Schedule.objects.filter(pk=schedule.pk).update(next_run=planned_ms)


def test_schedule_is_made_listed_changed_and_deleted(api):
    made = api.post(SCHEDULES, SEND)
    id_ = made.json()["id"]

    assert made.status_code == 201
    assert made.json()["send"] == {"slug": "order-1", "event": {"type": "remind"}}
    assert made.json()["timeZone"] == "UTC"
    assert made.json()["nextRun"].endswith("T09:00:00.000Z")
    assert len(made.json()["nextRuns"]) == 5
    assert made.json()["nextRuns"][0] == made.json()["nextRun"]
    assert [s["id"] for s in api.get(SCHEDULES).json()["schedules"]] == [id_]

    changed = api.patch(f"{SCHEDULES}/{id_}", {"paused": True, "cron": "30 8 * * 1"}).json()
    assert (changed["paused"], changed["cron"], changed["nextRuns"]) == (True, "30 8 * * 1", [])
    assert "nextRun" not in changed
    resumed = api.patch(f"{SCHEDULES}/{id_}", {"paused": False}).json()
    assert "T08:30" in resumed["nextRun"]
    turned = api.patch(f"{SCHEDULES}/{id_}", {"create": {"slug": "r-{week}"}}).json()
    assert turned["create"] == {"slug": "r-{week}", "context": {}}
    assert "send" not in turned
    assert api.get(f"{SCHEDULES}/{id_}").json() == turned

    assert api.delete(f"{SCHEDULES}/{id_}").status_code == 204
    assert_error(api.get(f"{SCHEDULES}/{id_}"), 404, "not-found")


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({**SEND, "cron": "x"}, "cron"),
        ({"send": SEND["send"]}, "cron"),
        ({**SEND, "timeZone": "Mars/Base"}, "timeZone"),
        ({"cron": "0 9 * * *"}, "send"),
        ({**SEND, **CREATE}, "send"),
        ({**SEND, "send": {"slug": "a b", "event": "x"}}, None),
        ({**SEND, "send": {"slug": "a", "event": {"no": "type"}}}, "event"),
        ({**SEND, "send": {"slug": "a", "event": "xstate.init"}}, "event"),
        ({**CREATE, "create": {"slug": "{year}"}}, "slug"),
        ({**CREATE, "create": {"slug": "a", "context": [1]}}, "context"),
        ({**SEND, "paused": "yes"}, "paused"),
    ],
)
def test_what_is_wrong_is_refused(api, body, parameter):
    answer = api.post(SCHEDULES, body)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-parameter")
    assert parameter is None or answer.json()["parameter"] == parameter
    assert not Schedule.objects.exists()


def test_others_see_nothing(machine, api):
    id_ = api.post(SCHEDULES, SEND).json()["id"]
    stranger = admin_api(make_org())
    reader = key_api(machine.org, *sorted(ALL - {"instances.write"}))

    assert_error(stranger.get(f"{SCHEDULES}/{id_}"), 404, "not-found")
    for refused in (
        reader.get(SCHEDULES),
        reader.get(f"{SCHEDULES}/{id_}"),
        reader.post(SCHEDULES, SEND),
        reader.patch(f"{SCHEDULES}/{id_}", {"paused": True}),
        reader.delete(f"{SCHEDULES}/{id_}"),
    ):
        assert_error(refused, 403, "missing-scope")


def test_machine_has_a_bounded_number(api, monkeypatch):
    monkeypatch.setattr(service, "SCHEDULES_MAX", 1)
    api.post(SCHEDULES, SEND)

    assert_error(api.post(SCHEDULES, SEND), 409, "conflict")


def test_only_what_is_due_becomes_a_delivery(machine, api):
    for _ in range(2):
        api.post(SCHEDULES, SEND)
    api.post(SCHEDULES, {**SEND, "paused": True})
    schedule = Schedule.objects.first()
    assert schedule is not None
    planned = now_ms() - 5_000
    make_due(schedule, planned)

    (firing,) = due.due(now_ms())

    assert firing.schedule_id == schedule.pk
    assert firing.expected_ms == planned
    assert firing.next_run_ms is not None
    assert firing.next_run_ms > now_ms()
    assert (firing.kind, firing.machine_id, firing.slug) == (1, machine.pk, "order-1")
    assert json.loads(firing.event) == {"type": "remind"}
    about = json.loads(firing.auth)["stateBackedSchedule"]
    assert about["id"] == schedule.public_id
    assert about["machineName"] == "order"


def test_missed_runs_are_one_at_the_latest_of_their_times(api):
    api.post(SCHEDULES, {**SEND, "cron": "*/10 * * * *"})
    schedule = Schedule.objects.get()
    make_due(schedule, now_ms() // 600_000 * 600_000 - 86_400_000)

    (firing,) = due.due(now_ms())

    assert 0 <= now_ms() - firing.planned_ms < 660_000
    assert firing.planned_ms % 600_000 == 0


def test_instance_is_created_once_by_its_name(machine, api):
    api.post(SCHEDULES, {**CREATE, "timeZone": "UTC"})
    schedule = Schedule.objects.get()
    planned = 1_767_258_000_000  # 2026-01-01 09:00 UTC
    make_due(schedule, planned)

    (firing,) = due.due(planned + 100)
    make_instance(machine, slug="report-2026-01-01")
    (again,) = due.due(planned + 100)

    assert (firing.kind, firing.slug, firing.problem) == (2, "report-2026-01-01", "")
    assert json.loads(firing.event)["context"] == {"n": 1}
    assert again.problem == "report-2026-01-01 exists already"
    assert Instance.objects.count() == 1


def test_nobody_can_say_that_a_schedule_sent_an_event():
    from authz.callers import OWN_CLAIMS

    assert {"stateBackedSchedule", "stateBackedSender"} == OWN_CLAIMS


def test_browsers_may_change_schedules():
    from statebacked_site.asgi import PREFLIGHT_HEADERS

    assert b"PATCH" in dict(PREFLIGHT_HEADERS)[b"access-control-allow-methods"]
