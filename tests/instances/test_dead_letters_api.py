import pytest

from instances.models import DeadLetter, Delivery
from machines.models import Machine
from tests.factories import Api, admin_api, assert_error, key_api, make_machine, make_org

pytestmark = pytest.mark.django_db

EVENT = '{"type":"remind","n":1}'


@pytest.fixture
def machine() -> Machine:
    return make_machine(make_org())


@pytest.fixture
def api(machine: Machine) -> Api:
    return admin_api(machine.org)


def make_letter(machine: Machine, letter_id: int = 7) -> DeadLetter:
    return DeadLetter.objects.create(
        id=letter_id,
        kind=Delivery.Kind.TIMER,
        org_id=machine.org_id,
        target_machine_id=machine.pk,
        target_slug="order-1",
        event=EVENT,
        due_at=1_795_000_000_000,
        created_at=1_795_000_000_000,
        died_at=1_795_000_120_000,
        attempts=5,
        claims=5,
        last_error="machine-error: no",
        reason="machine-error: no",
    )


def test_dead_letters_are_listed_latest_first(machine, api):
    make_letter(machine, 7)
    make_letter(machine, 8)

    letters = api.get("/dead-letters").json()["deadLetters"]

    assert [letter["id"] for letter in letters] == [8, 7]
    assert letters[0] == {
        "id": 8,
        "kind": "timer",
        "machineName": "order",
        "machineInstanceName": "order-1",
        "event": {"type": "remind", "n": 1},
        "reason": "machine-error: no",
        "attempts": 5,
        "dueAt": "2026-11-18T11:06:40.000Z",
        "diedAt": "2026-11-18T11:08:40.000Z",
    }


def test_redriven_letter_is_a_delivery_with_all_its_tries(machine, api):
    make_letter(machine)

    r = api.post("/dead-letters/7/deliveries")

    assert r.status_code == 204
    delivery = Delivery.objects.get()
    assert (delivery.id, delivery.event, delivery.attempts, delivery.claims) == (7, EVENT, 0, 0)
    assert not DeadLetter.objects.exists()


def test_redriven_letter_may_have_another_event(machine, api):
    make_letter(machine)

    api.post("/dead-letters/7/deliveries", {"event": {"type": "other"}})

    assert Delivery.objects.get().event == '{"type":"other"}'


@pytest.mark.parametrize("event", [1, "other", {}, {"type": 1}, None])
def test_bad_event_is_refused(machine, api, event):
    make_letter(machine)

    r = api.post("/dead-letters/7/deliveries", {"event": event})

    assert_error(r, 400, "invalid-parameter", "event")
    assert DeadLetter.objects.exists()


def test_discarded_letter_is_gone(machine, api):
    make_letter(machine)

    assert api.delete("/dead-letters/7").status_code == 204
    assert not DeadLetter.objects.exists()
    assert not Delivery.objects.exists()


@pytest.mark.parametrize("letter", ["8", str(2**70), "x", "-1"])
def test_letter_that_is_not_there(api, letter):
    assert_error(api.post(f"/dead-letters/{letter}/deliveries"), 404, "not-found")
    assert_error(api.delete(f"/dead-letters/{letter}"), 404, "not-found")


def test_letters_of_another_org_are_not_there(machine):
    make_letter(machine)
    stranger = admin_api(make_org("Other"))

    assert stranger.get("/dead-letters").json() == {"deadLetters": []}
    assert_error(stranger.post("/dead-letters/7/deliveries"), 404, "not-found")
    assert_error(stranger.delete("/dead-letters/7"), 404, "not-found")
    assert DeadLetter.objects.exists()


def test_letters_need_the_admin_scope(machine):
    make_letter(machine)
    reader = key_api(machine.org, "instances.read")

    assert_error(reader.get("/dead-letters"), 403, "missing-scope")
    assert_error(reader.post("/dead-letters/7/deliveries"), 403, "missing-scope")
    assert_error(reader.delete("/dead-letters/7"), 403, "missing-scope")


def test_message_to_an_unknown_machine_is_listed_by_its_name_and_keeps_its_sender(machine, api):
    letter = make_letter(machine)
    sender = '{"stateBackedSender":{"machineName":"a","machineInstanceName":"b"}}'
    letter.kind, letter.auth_context, letter.hops = Delivery.Kind.MESSAGE, sender, 3
    letter.target_machine_id, letter.target_machine = 0, "elsewhere"
    letter.save()

    listed = api.get("/dead-letters").json()["deadLetters"][0]
    api.post("/dead-letters/7/deliveries")

    assert (listed["kind"], listed["machineName"]) == ("message", "elsewhere")
    delivery = Delivery.objects.get()
    assert (delivery.auth_context, delivery.hops) == (sender, 3)
    assert (delivery.target_machine_id, delivery.target_machine) == (0, "elsewhere")
