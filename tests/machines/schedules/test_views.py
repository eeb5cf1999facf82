"""The pages of schedules."""

import pytest
from django.test import Client
from django.urls import reverse

from authz.models import Membership
from machines.schedules.models import Schedule
from tests.factories import make_machine, make_member, make_org

pytestmark = pytest.mark.django_db

FIELDS = {
    "cron": "0 9 * * 1",
    "time_zone": "Europe/Berlin",
    "action": "send",
    "slug": "order-1",
    "payload": "remind",
}


@pytest.fixture
def machine():
    return make_machine(make_org(), with_version=True)


def signed_in(machine, role=Membership.Role.ADMIN) -> Client:
    client = Client()
    client.force_login(make_member(machine.org, role))
    return client


def url(machine, name, *args):
    return reverse(name, args=[machine.org.public_id, machine.slug, *args])


def test_schedule_is_made_changed_paused_and_deleted(machine):
    client = signed_in(machine)
    assert "No schedule yet" in client.get(url(machine, "schedules-page")).content.decode()
    assert client.get(url(machine, "new-schedule")).status_code == 200

    made = client.post(url(machine, "new-schedule"), FIELDS)
    schedule = Schedule.objects.get()
    assert made.status_code == 302
    assert schedule.payload == '{"type":"remind"}'
    page = client.get(url(machine, "schedules-page")).content.decode()
    assert "0 9 * * 1" in page
    assert "remind" in page

    there = url(machine, "schedule-page", schedule.public_id)
    assert "Europe/Berlin" in client.get(there).content.decode()
    client.post(there, {**FIELDS, "action": "create", "payload": '{"n": 1}'})
    schedule.refresh_from_db()
    assert (schedule.action, schedule.payload) == ("create", '{"n":1}')

    act = url(machine, "schedule-act", schedule.public_id)
    client.post(act, {"do": "pause"})
    assert Schedule.objects.get().is_paused
    client.post(act, {"do": "resume"})
    assert not Schedule.objects.get().is_paused
    assert client.post(act, {"do": "dance"}).status_code == 400
    client.post(act, {"do": "delete"})
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("cron", "every day", "has five fields"),
        ("slug", "a b", "must be 1 to 128"),
        ("payload", "{", "not valid JSON"),
        ("payload", '{"a": 1}', "string `type`"),
        ("time_zone", "Mars", "is none of the names"),
    ],
)
def test_what_is_wrong_is_said_and_kept_in_the_form(machine, field, value, said):
    answer = signed_in(machine).post(url(machine, "new-schedule"), {**FIELDS, field: value})

    assert answer.status_code == 400
    assert said in answer.content.decode()
    assert not Schedule.objects.exists()


def test_form_shows_the_next_runs(machine):
    client = signed_in(machine)

    runs = client.get(
        url(machine, "schedule-runs"), {"cron": "0 9 * * *", "time_zone": "Asia/Tokyo"}
    ).content.decode()
    wrong = client.get(url(machine, "schedule-runs"), {"cron": "0 99 * * *"}).content.decode()

    assert runs.count("09:00 JST") == 5
    assert "Bad hour" in wrong


def test_readers_look_and_change_nothing(machine):
    client = signed_in(machine, Membership.Role.READ)

    assert client.get(url(machine, "schedules-page")).status_code == 200
    assert client.get(url(machine, "new-schedule")).status_code == 403
    assert client.post(url(machine, "new-schedule"), FIELDS).status_code == 403
    assert not Schedule.objects.exists()


def test_readers_see_no_payload(machine):
    signed_in(machine).post(
        url(machine, "new-schedule"), {**FIELDS, "payload": '{"type": "remind", "pin": 1234}'}
    )
    client = signed_in(machine, Membership.Role.READ)

    page = client.get(url(machine, "schedules-page")).content.decode()
    there = client.get(url(machine, "schedule-page", Schedule.objects.get().public_id))

    assert "remind" in page
    assert "1234" not in page
    assert there.status_code == 403
