"""A request is answered when its instance has settled, or at the time limit."""

import time

import pytest

from tests.acceptance.conftest import SETTLE_LIMIT_S, Deploy
from tests.acceptance.polling import eventually
from tests.acceptance.recorder import Recorder
from tests.acceptance.site import CLIENT, INIT, LOST_SERVICE, SERVICE, Site, assert_is_linear, types
from tests.acceptance.threads import later

MARGIN_S = 2.0  # for a busy machine
LOST_MESSAGE = "lost"  # part of what a machine is told about a service that is gone

pytestmark = pytest.mark.parametrize("file", ["trouble-xstate5.ts", "trouble-xstate4.ts"])


def test_answer_waits_for_the_service(site: Site, deploy: Deploy, recorder: Recorder, file: str):
    machine = deploy(file)
    slug = "waits"
    site.create(machine, slug)
    gate = f"{recorder.url}/gate/{slug}"

    answer = later(lambda: site.send(machine, slug, {"type": "visit", "url": gate}))
    eventually(lambda: recorder.was_called(f"/gate/{slug}"), what="the service runs")
    # A service starts after its transition is durable, never before.
    assert site.history(machine, slug)[-1].state == "visiting"
    assert not answer.done()
    recorder.open(slug)

    assert answer.result().json["state"] == "idle"
    assert answer.result().json["publicContext"]["problem"] == "none"
    history = site.history(machine, slug)
    assert [row.state for row in history] == ["idle", "visiting", "idle"]
    assert [row.kind for row in history][-1] == SERVICE
    assert recorder.calls()[f"/gate/{slug}"] == 1


def test_event_that_comes_while_settling_is_processed_at_once(
    site: Site, deploy: Deploy, recorder: Recorder, file: str
):
    machine = deploy(file)
    slug = "meanwhile"
    site.create(machine, slug)

    visit = {"type": "visit", "url": f"{recorder.url}/gate/{slug}"}
    first = later(lambda: site.send(machine, slug, visit))
    eventually(lambda: recorder.was_called(f"/gate/{slug}"), what="the service runs")
    second = later(lambda: site.send(machine, slug, "count"))
    eventually(lambda: types(site.history(machine, slug))[-1] == "count", what="it is processed")
    assert not second.done()
    recorder.open(slug)

    assert first.result().json == second.result().json
    assert second.result().json["state"] == "idle"
    assert second.result().json["publicContext"] == {"count": 1, "problem": "none"}
    assert_is_linear(site.history(machine, slug))
    # The service was not started again by the event that came meanwhile.
    assert recorder.calls()[f"/gate/{slug}"] == 1


def test_leaving_the_state_stops_the_service(
    site: Site, deploy: Deploy, recorder: Recorder, file: str
):
    machine = deploy(file)
    slug = "left"
    site.create(machine, slug)

    visit = {"type": "visit", "url": f"{recorder.url}/gate/{slug}"}
    first = later(lambda: site.send(machine, slug, visit))
    eventually(lambda: recorder.was_called(f"/gate/{slug}"), what="the service runs")
    left = site.send(machine, slug, "leave")
    recorder.open(slug)
    after = site.send(machine, slug, "count")

    # Nothing is left to wait for, so both are answered; no result of the service comes any more.
    assert left.json["state"] == "idle"
    assert first.result().json["state"] == "idle"
    assert after.json["publicContext"] == {"count": 1}
    assert types(site.history(machine, slug)) == ["xstate.init", "visit", "leave", "count"]


def test_service_that_fails_gives_its_error_event(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    site.create(machine, "fails")

    answer = site.send(machine, "fails", "fail")

    assert answer.status == 200
    assert answer.json["state"] == "idle"
    assert answer.json["publicContext"]["problem"] == "a service threw on purpose"
    assert [row.state for row in site.history(machine, "fails")] == ["idle", "failing", "idle"]


def test_time_limit_answers_with_the_latest_state(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    site.create(machine, "hangs")

    started = time.monotonic()
    answer = site.send(machine, "hangs", "hang")
    waited_s = time.monotonic() - started

    assert answer.status == 200
    assert answer.json["state"] == "hanging"
    assert SETTLE_LIMIT_S * 0.9 < waited_s < SETTLE_LIMIT_S + MARGIN_S
    assert types(site.history(machine, "hangs")) == ["xstate.init", "hang"]


def test_stopped_service_gives_its_error_event_before_the_next_event(
    site: Site, deploy: Deploy, recorder: Recorder, file: str
):
    machine = deploy(file)
    slug = "stopped"
    site.create(machine, slug)

    site.send(machine, slug, {"type": "visit", "url": f"{recorder.url}/gate/{slug}"})
    recorder.open(slug)  # too late: nobody listens any more
    answer = site.send(machine, slug, "count")

    assert answer.json["state"] == "idle"
    assert answer.json["publicContext"]["count"] == 1
    assert LOST_MESSAGE in answer.json["publicContext"]["problem"]
    history = site.history(machine, slug)
    assert [row.kind for row in history][2] == LOST_SERVICE
    assert [row.state for row in history] == ["idle", "visiting", "idle", "idle"]
    assert types(history)[3] == "count"
    # The history shows the event as the machine got it.
    assert history[2].context["public"]["count"] == 0
    assert recorder.calls()[f"/gate/{slug}"] == 1


def test_service_that_dies_with_its_runner_gives_its_error_event(
    site: Site, deploy: Deploy, recorder: Recorder, file: str
):
    machine = deploy(file)
    slug = "dies"
    site.create(machine, slug)

    visit = {"type": "visit", "url": f"{recorder.url}/gate/{slug}"}
    first = later(lambda: site.send(machine, slug, visit))
    eventually(lambda: recorder.was_called(f"/gate/{slug}"), what="the service runs")
    site.kill_runners()
    recorder.open(slug)
    assert first.result().status == 200  # its transition stands

    second = site.send(machine, slug, "count")

    assert second.json["state"] == "idle"
    assert LOST_MESSAGE in second.json["publicContext"]["problem"]
    kinds = [row.kind for row in site.history(machine, slug)]
    assert kinds == [INIT, CLIENT, LOST_SERVICE, CLIENT]
    # Services run at most once: nobody has tried again.
    assert recorder.calls()[f"/gate/{slug}"] == 1


def test_events_extend_the_time_limit(site: Site, deploy: Deploy, recorder: Recorder, file: str):
    machine = deploy(file)
    slug = "extended"
    site.create(machine, slug)
    visit = {"type": "visit", "url": f"{recorder.url}/gate/{slug}"}

    started = time.monotonic()
    first = later(lambda: site.send(machine, slug, visit))
    eventually(lambda: recorder.was_called(f"/gate/{slug}"), what="the service runs")
    eventually(lambda: time.monotonic() - started > SETTLE_LIMIT_S * 0.7, what="its time runs")
    second = later(lambda: site.send(machine, slug, "count"))
    eventually(lambda: time.monotonic() - started > SETTLE_LIMIT_S * 1.3, what="its time is over")
    assert not first.done()
    recorder.open(slug)

    assert first.result().json["publicContext"] == {"count": 1, "problem": "none"}
    assert second.result().json["state"] == "idle"
