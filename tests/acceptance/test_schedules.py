"""Schedules end to end: due ones create instances and send events. Nobody can pretend to be one."""

import time

from tests.acceptance.conftest import Deploy
from tests.acceptance.polling import eventually
from tests.acceptance.site import Site

DAILY = "0 0 * * *"


def make_due(site: Site, schedule: str) -> None:
    """As if its time had come a moment ago."""
    planned = time.time_ns() // 1_000_000 - 500
    site.execute("UPDATE schedule SET next_run=? WHERE public_id=?", planned, schedule)


def make_schedule(site: Site, machine: str, **what: object) -> str:
    answer = site.request("POST", f"/machines/{machine}/schedules", {"cron": DAILY, **what})
    assert answer.status == 201, answer.text
    return str(answer.json["id"])


def test_schedule_creates_an_instance_and_sends_it_events(site: Site, deploy: Deploy):
    machine = deploy("nightly.ts")
    slug = "night-1"
    creates = make_schedule(
        site, machine, create={"slug": slug, "context": {"public": {"of": "cron"}}}
    )

    make_due(site, creates)
    eventually(lambda: site.history(machine, slug), what="it is created")
    assert site.context(machine, slug)["public"] == {"of": "cron", "count": 0}

    sends = make_schedule(site, machine, send={"slug": slug, "event": "run"})
    make_due(site, sends)
    eventually(
        lambda: site.context(machine, slug)["public"]["count"] == 1, what="the event is processed"
    )
    listed = site.request("GET", f"/machines/{machine}/schedules").json["schedules"]
    mine = {schedule["id"]: schedule for schedule in listed}
    assert "lastProblem" not in mine[sends]
    assert mine[sends]["lastRun"] < mine[sends]["nextRun"]
    sender = site.history(machine, slug)[-1]
    assert sender.event == {"type": "run"}

    make_due(site, creates)  # its name is taken by now
    eventually(
        lambda: (
            site.request("GET", f"/machines/{machine}/schedules/{creates}").json.get("lastProblem")
            == f"{slug} exists already"
        ),
        what="it says so",
    )


def test_nobody_can_pretend_to_be_a_schedule(site: Site, deploy: Deploy):
    machine = deploy("nightly.ts")
    claims = {"sub": "eve", "stateBackedSchedule": {"machineName": "nightly"}}
    assert site.create(machine, "guarded", act=claims).status == 200

    answer = site.send(machine, "guarded", "run", act=claims)

    assert (answer.status, answer.json["code"]) == (403, "rejected-by-machine-authorizer")
