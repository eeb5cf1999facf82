"""Instances send to each other, have children, and hear of their ends, in both majors of XState."""

import json
import os
import time
from typing import Any

import pytest

from machines.confirmation import name_hmac
from tests.acceptance.conftest import MACHINES, Deploy
from tests.acceptance.polling import eventually
from tests.acceptance.site import CLIENT, INIT, MESSAGE, Site, assert_is_linear

FAMILIES = ["family-xstate5.ts", "family-xstate4.ts"]
PINGS = int(os.environ.get("ACCEPTANCE_PINGS", "1000"))


@pytest.fixture(params=FAMILIES)
def machine(request, deploy: Deploy) -> str:
    return deploy(request.param)


def heard(site: Site, machine: str, slug: str) -> list[Any]:
    answer = site.state(machine, slug)
    return list(answer.json["publicContext"]["heard"]) if answer.status == 200 else []


def test_message_to_a_handmade_reference_says_who_sent_it(site: Site, machine: str):
    site.create(machine, "rating")
    site.create(machine, "aggregate", {"guarded": "rating", "public": {"heard": []}})

    site.send(machine, "rating", {"type": "tell", "to": "aggregate", "n": 5})
    eventually(lambda: heard(site, machine, "aggregate") == [5])

    assert [row.kind for row in site.history(machine, "aggregate")] == [INIT, MESSAGE]
    [(auth,)] = site.query(
        "SELECT auth_context FROM transition t JOIN instance i ON i.id = t.instance_id"
        " JOIN machines_machine m ON m.id = i.machine_id"
        " WHERE m.slug = ? AND i.slug = 'aggregate' AND t.kind = 3",
        machine,
    )
    sender = {"machineName": machine, "machineInstanceName": "rating"}
    assert json.loads(auth) == {"stateBackedSender": sender}
    # A person can't say that they are an instance.
    claims = {"sub": "ann", "stateBackedSender": sender}
    forged = site.send(machine, "aggregate", {"type": "note", "n": 6}, act=claims)
    assert forged.status == 403


def test_machines_of_both_majors_send_to_each_other(site: Site, deploy: Deploy):
    new, old = (deploy(file) for file in FAMILIES)
    site.create(new, "across")
    site.create(old, "across")

    site.send(new, "across", {"type": "tell", "to": "across", "machine": old, "n": 1})
    site.send(old, "across", {"type": "tell", "to": "across", "machine": new, "n": 2})

    eventually(lambda: heard(site, old, "across") == [1] and heard(site, new, "across") == [2])


def test_delayed_message_comes_later_unless_it_is_cancelled(site: Site, machine: str):
    site.create(machine, "sender")
    site.create(machine, "receiver")
    for n, delay_ms in ((1, 600), (2, 700)):
        site.send(
            machine, "sender", {"type": "tellLater", "to": "receiver", "n": n, "delay": delay_ms}
        )
    site.send(machine, "sender", "takeBack")  # the latest of that id
    site.send(machine, "sender", {"type": "tell", "to": "receiver", "n": 0})

    eventually(lambda: heard(site, machine, "receiver") == [0, 1])
    arrived_at = site.history(machine, "receiver")[-1].created_at
    assert arrived_at - site.history(machine, "sender")[1].created_at >= 600
    query = "SELECT count(*) FROM delivery WHERE target_slug = 'receiver'"
    assert site.query(query) == [(0,)]


def test_spawned_child_is_sent_to_by_name_and_answers_its_parent(site: Site, machine: str):
    site.create(machine, "parent")

    site.send(machine, "parent", {"type": "spawn", "as": "kid-1", "colour": "red"})
    eventually(lambda: heard(site, machine, "kid-1") == ["hello kid-1"])
    site.kill_runners()
    site.send(machine, "parent", {"type": "tellKid", "n": 2})
    eventually(lambda: heard(site, machine, "kid-1") == ["hello kid-1", 2])
    site.kill_runners()
    site.send(machine, "kid-1", {"type": "up", "n": 3})
    eventually(lambda: heard(site, machine, "parent") == [3])
    site.send(machine, "kid-1", "finish")
    eventually(lambda: heard(site, machine, "parent") == [3, 2])  # the child's output

    assert site.state(machine, "kid-1").json["publicContext"]["colour"] == "red"
    query = "SELECT count(*) FROM instance WHERE parent_child = 'kid' AND slug = 'kid-1'"
    assert site.query(query) >= [(1,)]


def test_invoked_instance_ends_and_its_parent_goes_on(site: Site, machine: str):
    site.create(machine, "raiser")

    site.send(machine, "raiser", "raise")
    site.send(machine, "raiser", "finishChild")

    eventually(lambda: site.state(machine, "raiser").json["state"] == "proud")
    assert heard(site, machine, "raiser") == [0]


def test_parent_hears_that_its_child_was_deleted(site: Site, machine: str):
    site.create(machine, "bereft")
    site.send(machine, "bereft", {"type": "spawn", "as": "gone"})
    eventually(lambda: heard(site, machine, "gone") == ["hello gone"])

    yes = {
        "dangerDataWillBeDeletedForever": True,
        "hmacSha256OfMachineInstanceNameWithMachineNameKey": name_hmac(machine, "gone"),
    }
    assert site.request("DELETE", f"/machines/{machine}/i/gone", yes).status < 300

    eventually(lambda: heard(site, machine, "bereft") == ["ChildDeleted"])


def test_spawn_that_the_machine_refuses_creates_nothing(site: Site, machine: str):
    site.create(machine, "refused")

    answer = site.send(machine, "refused", {"type": "spawn", "as": "never", "guarded": True})

    assert answer.status == 200
    query = (
        "SELECT attempts, last_error FROM delivery WHERE kind = 2 AND target_slug = 'never'"
        " AND target_machine_id = (SELECT id FROM machines_machine WHERE slug = ?)"
    )
    [(attempts, error)] = eventually(
        lambda: [row for row in site.query(query, machine) if row[0] > 0], what="a failed attempt"
    )[:1]
    assert attempts == 1
    assert "rejected-by-machine-authorizer" in error
    assert site.state(machine, "never").status == 404


def test_ping_pong(site: Site, machine: str):
    site.create(machine, "ping")
    site.create(machine, "pong")
    pings = PINGS
    started = time.monotonic()

    serve = {"type": "pong", "n": 1, "until": pings, "from": "ping", "to": "pong"}
    site.send(machine, "pong", serve)
    eventually(lambda: last_pong(site, machine) == pings, within_s=120, what="the last one")

    print(f"{pings / (time.monotonic() - started):,.0f} messages/s")  # noqa: T201
    for slug in ("ping", "pong"):
        public = site.state(machine, slug).json["publicContext"]
        assert (public["pongs"], public["outOfTurn"]) == (pings // 2, 0)
        history = site.history(machine, slug)
        assert_is_linear(history)
        assert len(history) == 1 + pings // 2


def last_pong(site: Site, machine: str) -> int:
    publics = [site.state(machine, slug).json["publicContext"] for slug in ("ping", "pong")]
    return max(public.get("last", 0) for public in publics)


def test_kills_while_messages_flow_lose_none_double_none_and_keep_their_order(own_site: Site):
    own_site.start()
    own_site.deploy("family-xstate5", MACHINES / "family-xstate5.ts")
    machine = "family-xstate5"
    for slug in ("a", "b", "sink"):
        own_site.create(machine, slug)

    for kill in range(4):
        client = own_site.client()
        try:
            for n in range(40 + 10 * kill):
                slug = "ab"[n % 2]
                event = {"type": "tell", "to": "sink", "n": [slug, kill, n]}
                path = f"/machines/{machine}/i/{slug}/events"
                assert client.request("POST", path, {"event": event}).status == 200
        finally:
            client.close()
        own_site.restart()

    sent = {
        slug: [row.event["n"] for row in own_site.history(machine, slug) if row.kind == CLIENT]
        for slug in "ab"
    }
    total = sum(len(events) for events in sent.values())
    assert total == 40 + 50 + 60 + 70
    eventually(lambda: len(heard(own_site, machine, "sink")) >= total, within_s=60)
    got = heard(own_site, machine, "sink")
    for slug, events in sent.items():
        assert [n for n in got if n[0] == slug] == events
    assert own_site.query("SELECT count(*) FROM delivery") == [(0,)]
    assert own_site.query("SELECT count(*) FROM dead_letter") == [(0,)]
