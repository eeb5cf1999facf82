"""The examples do what their comments say, for those they say it to."""

import json
from pathlib import Path

import pytest

from tests.acceptance.conftest import EXAMPLES, Deploy
from tests.acceptance.polling import eventually
from tests.acceptance.site import Site, act, assert_is_linear, types

ADA = act("ada")
GRACE = act("grace")
MARY = act("mary")
SAM = act("sam", role="staff")

ORDERS = ["order.ts", "order-xstate4.ts"]
GOOD_CARD = "4242424242424242"
BAD_CARD = "4000000000000002"


@pytest.mark.parametrize("file", ["toggler.ts", "toggler-xstate4.ts"])
def test_toggler_counts_how_often_it_was_thrown(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)

    created = site.create(machine, "hall-light", act=ADA)
    on = site.send(machine, "hall-light", {"type": "toggle"}, act=ADA)
    off = site.send(machine, "hall-light", "toggle", act=GRACE)

    assert created.json["state"] == "off"
    assert on.json["state"] == "on"
    assert off.json["state"] == "off"
    assert off.json["publicContext"] == {"toggleCount": 2}
    assert created.json["ts"] < on.json["ts"] < off.json["ts"]
    assert types(site.history(machine, "hall-light")) == ["xstate.init", "toggle", "toggle"]


@pytest.mark.parametrize("file", ["toggler.ts", "toggler-xstate4.ts"])
def test_toggler_refuses_who_is_nobody(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    site.create(machine, "guarded-light", act=ADA)

    refused = site.send(machine, "guarded-light", "toggle", act={"name": "nobody"})

    assert refused.outcome == (403, "rejected-by-machine-authorizer")
    assert types(site.history(machine, "guarded-light")) == ["xstate.init"]


def test_counter_stays_within_its_bounds(site: Site, deploy: Deploy):
    machine = deploy("counter.ts")
    site.create(machine, "visits", {"owner": "ada", "max": 4}, act=ADA)

    counts = [
        site.send(machine, "visits", event, act=ADA).json["publicContext"]["count"]
        for event in (
            {"type": "increment", "by": 3},
            {"type": "increment", "by": 2},  # would be 5
            {"type": "increment"},
            {"type": "decrement", "by": 5},  # would be -1
            {"type": "increment", "by": "many"},
            {"type": "reset"},
        )
    ]

    assert counts == [3, 3, 4, 4, 4, 0]
    # What changed nothing is no transition.
    history = site.history(machine, "visits")
    assert types(history) == ["xstate.init", "increment", "increment", "reset"]


def test_counter_is_reset_by_its_owner_only(site: Site, deploy: Deploy):
    machine = deploy("counter.ts")
    site.create(machine, "adas-own", {"owner": "ada"}, act=ADA)

    assert site.send(machine, "adas-own", "increment", act=GRACE).status == 200
    refused = site.send(machine, "adas-own", "reset", act=GRACE)
    for_another = site.create(machine, "graces-own", {"owner": "ada"}, act=GRACE)

    assert refused.outcome == (403, "rejected-by-machine-authorizer")
    assert for_another.outcome == (403, "rejected-by-machine-authorizer")
    assert types(site.history(machine, "adas-own")) == ["xstate.init", "increment"]
    assert site.state(machine, "graces-own", act=ADA).status == 404


@pytest.mark.parametrize("file", ORDERS)
def test_order_is_charged_and_shipped(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    context = {"customer": "ada", "public": {"total": 4200}}
    site.create(machine, "order-1", context, act=SAM)

    refused_card = site.send(machine, "order-1", {"type": "pay", "card": BAD_CARD}, act=ADA)
    paid = site.send(machine, "order-1", {"type": "pay", "card": GOOD_CARD}, act=ADA)
    shipped = site.send(machine, "order-1", {"type": "ship", "trackingNumber": "X1"}, act=SAM)

    assert refused_card.json["state"] == "awaitingPayment"
    assert refused_card.json["publicContext"]["problem"] == "the card was declined"
    assert paid.json["state"] == "paid"
    assert paid.json["publicContext"] == {"total": 4200, "receipt": "receipt-2-4200"}
    assert shipped.json["state"] == "shipped"
    assert shipped.json["done"] is True
    assert_is_linear(site.history(machine, "order-1"))
    states = [row.state for row in site.history(machine, "order-1")]
    assert states == [
        "awaitingPayment",
        "charging",
        "awaitingPayment",
        "charging",
        "paid",
        "shipped",
    ]


@pytest.mark.parametrize("file", ORDERS)
def test_order_is_its_customers_affair(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    context = {"customer": "ada", "public": {"total": 1}}

    by_customer = site.create(machine, "cheap", context, act=ADA)
    site.create(machine, "private", context, act=SAM)
    read_by_another = site.state(machine, "private", act=GRACE)
    paid_by_another = site.send(machine, "private", {"type": "pay", "card": GOOD_CARD}, act=GRACE)
    shipped_by_customer = site.send(machine, "private", {"type": "ship"}, act=ADA)

    rejected = (403, "rejected-by-machine-authorizer")
    assert by_customer.outcome == rejected
    assert read_by_another.outcome == rejected
    assert paid_by_another.outcome == rejected
    assert shipped_by_customer.outcome == rejected
    assert site.state(machine, "private", act=ADA).json["state"] == "awaitingPayment"
    assert len(site.history(machine, "private")) == 1


@pytest.mark.parametrize("file", ORDERS)
def test_leaving_the_order_unpaid_sets_a_timer_that_cancelling_removes(
    site: Site, deploy: Deploy, file: str
):
    machine = deploy(file)
    site.create(machine, "unpaid", {"customer": "ada", "public": {"total": 1}}, act=SAM)
    due_at = "SELECT due_at FROM delivery WHERE target_slug = 'unpaid' AND target_machine_id = ?"
    [(machine_id,)] = site.query("SELECT id FROM machines_machine WHERE slug = ?", machine)
    [(due_at_ms,)] = site.query(due_at, machine_id)

    cancelled = site.send(machine, "unpaid", "cancel", act=ADA)

    created_at = site.history(machine, "unpaid")[0].created_at
    assert due_at_ms - created_at == 3 * 24 * 3600 * 1000
    assert cancelled.json["done"] is True
    assert site.query(due_at, machine_id) == []


def test_approval_reminds_and_goes_up(site: Site, deploy: Deploy):
    machine = deploy("approval.ts")
    people = {"requester": "ada", "approver": "grace", "manager": "mary"}
    soon = {"daysBetweenReminders": 0.05 / 86_400}  # 50 ms

    site.create(machine, "trip", {**people, **soon, "public": {"title": "Trip"}}, act=ADA)
    state = eventually(
        lambda: (s := site.state(machine, "trip", act=MARY).json)["tags"] == ["escalated"] and s,
        what="the manager is asked",
    )
    by_requester = site.send(machine, "trip", {"type": "approve", "by": "ada"}, act=ADA)
    in_anothers_name = site.send(machine, "trip", {"type": "approve", "by": "mary"}, act=GRACE)
    approved = site.send(machine, "trip", {"type": "approve", "by": "mary"}, act=MARY)

    assert state["publicContext"] == {"title": "Trip", "reminders": 3}
    assert by_requester.outcome == (403, "rejected-by-machine-authorizer")
    assert in_anothers_name.outcome == (403, "rejected-by-machine-authorizer")
    assert approved.json["state"] == "approved"
    assert approved.json["publicContext"]["decidedBy"] == "mary"
    to_mary = eventually(lambda: [line for line in site.log("trip") if "To mary" in line])
    assert to_mary == ['To mary: nobody has decided "Trip"']
    assert len([line for line in site.log("trip") if "To grace" in line]) == 3


def test_chat_room_belongs_to_its_members(site: Site, deploy: Deploy):
    machine = deploy("chat-room.ts")
    site.create(machine, "lobby", act=ADA)

    def send(who: dict[str, object], kind: str, **payload: object):
        event = {"type": kind, "from": who["sub"], **payload}
        return site.send(machine, "lobby", event, act=who)

    stranger = send(dict(GRACE), "say", text="Hello?")
    unread = site.state(machine, "lobby", act=GRACE)
    send(dict(ADA), "join")
    send(dict(GRACE), "join")
    typing = send(dict(GRACE), "keystroke")
    said = send(dict(GRACE), "say", text="Hello!")
    empty = send(dict(ADA), "say", text="")
    impostor = site.send(
        machine, "lobby", {"type": "say", "from": "ada", "text": "I am Ada"}, act=GRACE
    )

    assert stranger.outcome == (403, "rejected-by-machine-authorizer")
    assert unread.outcome == (403, "rejected-by-machine-authorizer")
    assert impostor.outcome == (403, "rejected-by-machine-authorizer")
    assert typing.json["publicContext"]["typing"] == "grace"
    assert typing.json["state"] == {"open": {"conversation": "going", "keyboard": "typing"}}
    assert said.json["publicContext"] == {
        "members": ["ada", "grace"],
        "messages": [{"from": "grace", "text": "Hello!"}],
    }
    assert empty.json["publicContext"]["messages"] == said.json["publicContext"]["messages"]


def test_the_demo_can_be_made_of_the_examples(site: Site, deploy: Deploy):
    plan = json.loads((EXAMPLES / "demo.json").read_text())
    assert set(plan) == {path.stem for path in _sources()}

    for machine, instances in plan.items():
        deploy(f"{machine}.ts")
        for instance in instances:
            slug = f"demo-{instance['slug']}"
            created = site.create(
                machine, slug, instance.get("context"), act=instance["authContext"]
            )
            assert created.status == 200, created.text
            for item in instance.get("events", []):
                sent = site.send(machine, slug, item["event"], act=item["authContext"])
                assert sent.status == 200, sent.text
            # Each event of the demo does something.
            events = [row.type for row in site.history(machine, slug) if row.kind == 1]
            assert events == [item["event"]["type"] for item in instance.get("events", [])]


def _sources() -> list[Path]:
    return sorted(EXAMPLES.glob("*.ts"))
