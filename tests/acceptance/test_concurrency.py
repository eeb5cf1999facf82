"""Many clients at once, one history."""

import pytest

from tests.acceptance.conftest import Deploy
from tests.acceptance.http_client import Answer
from tests.acceptance.site import Site, act, assert_is_linear, types
from tests.acceptance.threads import together

CLIENTS = 100
ADA = act("ada")


def test_a_hundred_increments_at_once_count_to_a_hundred(site: Site, deploy: Deploy):
    machine = deploy("counter.ts")
    site.create(machine, "hundred", {"owner": "ada"}, act=ADA)

    answers = together([lambda: site.send(machine, "hundred", "increment", act=ADA)] * CLIENTS)

    assert {answer.status for answer in answers} == {200}
    # Each was answered with the state that its own event made.
    assert sorted(answer.json["publicContext"]["count"] for answer in answers) == list(
        range(1, CLIENTS + 1)
    )
    assert len({answer.json["ts"] for answer in answers}) == CLIENTS
    assert site.state(machine, "hundred", act=ADA).json["publicContext"] == {"count": CLIENTS}
    history = site.history(machine, "hundred")
    assert types(history) == ["xstate.init", *["increment"] * CLIENTS]
    assert_is_linear(history)


def test_of_a_hundred_creations_at_once_one_wins(site: Site, deploy: Deploy):
    machine = deploy("counter.ts")

    answers = together([lambda: site.create(machine, "once", {"owner": "ada"}, act=ADA)] * CLIENTS)

    statuses = sorted(answer.status for answer in answers)
    assert statuses == [200] + [409] * (CLIENTS - 1)
    assert {answer.json["code"] for answer in answers if answer.status == 409} == {"conflict"}
    assert types(site.history(machine, "once")) == ["xstate.init"]


@pytest.mark.parametrize("round_number", range(10))
def test_a_repeated_request_counts_once(site: Site, deploy: Deploy, round_number: int):
    machine = deploy("counter.ts")
    slug = f"repeated-{round_number}"
    site.create(machine, slug, {"owner": "ada"}, act=ADA)
    path = f"/machines/{machine}/i/{slug}/events"

    def send() -> Answer:
        key = {"idempotency-key": "order-17"}
        return site.request("POST", path, {"event": "increment"}, act=ADA, headers=key)

    answers = together([send] * 20)

    assert {answer.status for answer in answers} == {200}
    replayed = [a for a in answers if a.headers.get("idempotent-replayed") == "true"]
    assert len(replayed) == 19
    # Who is told that it was applied is shown a state in which it was.
    assert {answer.json["publicContext"]["count"] for answer in answers} == {1}
    assert types(site.history(machine, slug)) == ["xstate.init", "increment"]
