"""What goes wrong in a machine stays there: other machines and later events don't notice."""

import pytest

from tests.acceptance.conftest import Deploy
from tests.acceptance.polling import eventually
from tests.acceptance.recorder import Recorder
from tests.acceptance.site import Site, is_running, types
from tests.acceptance.threads import later

pytestmark = pytest.mark.parametrize("file", ["trouble-xstate5.ts", "trouble-xstate4.ts"])


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("boomInGuard", "a guard threw on purpose"),
        ("boomInAssign", "an assign threw on purpose"),
    ],
)
def test_event_whose_computation_throws_never_came(
    site: Site, deploy: Deploy, file: str, event: str, message: str
):
    machine = deploy(file)
    slug = event
    site.create(machine, slug)
    site.send(machine, slug, "count")

    thrown = site.send(machine, slug, event)
    read = site.state(machine, slug)
    after = site.send(machine, slug, "count")

    assert thrown.outcome == (500, "machine-error")
    assert message in thrown.json["error"]
    assert read.json["publicContext"] == {"count": 1}
    assert after.json["publicContext"] == {"count": 2}
    assert types(site.history(machine, slug)) == ["xstate.init", "count", "count"]
    eventually(lambda: any(message in line for line in site.log(slug)), what="it is in the log")


def test_only_admins_are_told_what_a_machine_threw(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    site.create(machine, "secretive")
    client = site.client(site.user_token(sub="ada"))

    path = f"/machines/{machine}/i/secretive/events"
    thrown = client.request("POST", path, {"event": "boomInGuard"})
    client.close()

    assert thrown.outcome == (500, "machine-error")
    assert "on purpose" not in thrown.text
    assert "at " not in thrown.text  # no stack
    assert thrown.headers["x-request-id"] in thrown.json["error"]


def test_action_that_throws_leaves_its_transition_standing(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    site.create(machine, "boomInAction")

    answer = site.send(machine, "boomInAction", "boomInAction")
    after = site.send(machine, "boomInAction", "count")

    assert answer.status == 200
    assert answer.json["publicContext"] == {"count": 1}
    assert after.json["publicContext"] == {"count": 2}
    eventually(lambda: any("an action threw" in line for line in site.log("boomInAction")))


def test_rejection_that_nobody_handles_harms_nothing(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    site.create(machine, "rejectUnheard")
    before = site.runners()

    answer = site.send(machine, "rejectUnheard", "rejectUnheard")
    after = site.send(machine, "rejectUnheard", "count")

    assert answer.json["publicContext"] == {"count": 1}
    assert after.json["publicContext"] == {"count": 2}
    eventually(lambda: any("nobody listens" in line for line in site.log("rejectUnheard")))
    # No process had to die for it.
    assert [pid for pid in before if not is_running(pid)] == []


@pytest.mark.parametrize(
    ("character", "times", "status"),
    [
        ("x", 399_000, 200),
        ("x", 400_001, 400),
        ("é", 199_000, 200),  # two bytes each
        ("é", 200_001, 400),
        ('"', 199_000, 200),  # escaped
        ('"', 200_001, 400),
    ],
)
def test_context_has_at_most_400_kb(
    site: Site, deploy: Deploy, file: str, character: str, times: int, status: int
):
    machine = deploy(file)
    slug = f"grow-{ord(character)}-{times}"
    site.create(machine, slug)

    answer = site.send(machine, slug, {"type": "grow", "character": character, "times": times})
    after = site.send(machine, slug, "count")

    assert answer.status == status
    if status == 400:
        assert answer.json["code"] == "context-too-large"
        assert types(site.history(machine, slug)) == ["xstate.init", "count"]
        assert site.context(machine, slug)["filling"] == ""
    else:
        assert len(site.context(machine, slug)["filling"]) == times
    assert after.json["publicContext"] == {"count": 1}


@pytest.mark.parametrize("event", ["allocate", "fillBuffers"])
def test_machine_that_takes_too_much_memory_fails_alone(
    site: Site, deploy: Deploy, file: str, event: str
):
    machine = deploy(file)
    other = deploy("toggler.ts")
    slug = f"{machine}-{event}"
    site.create(machine, slug)
    site.send(machine, slug, "count")
    site.create(other, slug)

    answer = site.send(machine, slug, event)
    elsewhere = site.send(other, slug, "toggle")
    after = site.send(machine, slug, "count")

    assert answer.status == 500
    assert answer.json["code"] in ("machine-error", "machine-limit")
    assert elsewhere.json["state"] == "on"
    assert after.json["publicContext"] == {"count": 2}
    assert types(site.history(machine, slug)) == ["xstate.init", "count", "count"]


def test_endless_loop_is_ended_and_fails_alone(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    other = deploy("toggler.ts")
    site.create(machine, "loops")
    site.create(machine, "neighbour")
    site.send(machine, "loops", "count")
    site.create(other, f"beside-{machine}")

    looping = later(lambda: site.send(machine, "loops", "loopInGuard"))
    elsewhere = site.send(other, f"beside-{machine}", "toggle")
    assert not looping.done()  # so that was answered meanwhile
    neighbour = site.send(machine, "neighbour", "count")
    after = site.send(machine, "loops", "count")

    assert elsewhere.json["state"] == "on"
    assert looping.result().outcome == (500, "machine-limit")
    # An instance of the same machine had to wait, and nothing else happened to it.
    assert neighbour.json["publicContext"] == {"count": 1}
    assert after.json["publicContext"] == {"count": 2}
    assert types(site.history(machine, "loops")) == ["xstate.init", "count", "count"]
    assert types(site.history(machine, "neighbour")) == ["xstate.init", "count"]


def test_endless_loop_in_an_action_leaves_its_transition_standing(
    site: Site, deploy: Deploy, file: str
):
    machine = deploy(file)
    site.create(machine, "loopInAction")

    answer = site.send(machine, "loopInAction", "loopInAction")
    after = site.send(machine, "loopInAction", "count")

    assert answer.status == 200
    assert answer.json["publicContext"] == {"count": 1}
    assert after.json["publicContext"] == {"count": 2}
    assert types(site.history(machine, "loopInAction")) == ["xstate.init", "loopInAction", "count"]


def test_polluted_prototypes_do_not_last(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    other = deploy("trouble-xstate4.ts" if file == "trouble-xstate5.ts" else "trouble-xstate5.ts")
    site.create(machine, "pollutes")
    site.create(machine, "victim")
    site.create(other, f"beside-{machine}")

    polluted = site.send(machine, "pollutes", "pollute")
    elsewhere = site.send(other, f"beside-{machine}", "probe")

    def probe() -> str:
        answer = site.send(machine, "victim", "probe")
        assert answer.status == 200, answer.text
        return str(answer.json["publicContext"]["polluted"])

    assert polluted.json["publicContext"] == {"count": 1}
    # Other machines never saw it, and this one soon doesn't any more.
    assert elsewhere.json["publicContext"]["polluted"] == "undefined"
    eventually(lambda: probe() == "undefined", what="the polluted process is replaced")


def test_authorizer_that_throws_says_no(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    slug = f"{machine}-thrower"
    site.create(machine, slug)
    thrower = {"sub": "thrower"}

    written = site.send(machine, slug, "count", act=thrower)
    read = site.state(machine, slug, act=thrower)
    created = site.create(machine, f"{slug}-2", act=thrower)

    rejected = (403, "rejected-by-machine-authorizer")
    assert written.outcome == rejected
    assert read.outcome == rejected
    assert created.outcome == rejected
    assert types(site.history(machine, slug)) == ["xstate.init"]
    assert site.state(machine, f"{slug}-2").status == 404
    eventually(lambda: any("an authorizer threw" in line for line in site.log(slug)))


def test_effects_run_after_their_transition_is_stored_and_once(
    site: Site, deploy: Deploy, recorder: Recorder, file: str
):
    machine = deploy(file)
    site.create(machine, "calls")

    for n in range(20):
        url = f"{recorder.url}/effect/{n}"
        assert site.send(machine, "calls", {"type": "call", "url": url}).status == 200

    eventually(lambda: recorder.was_called("/effect/19"), what="the last effect")
    assert recorder.calls() == {f"/effect/{n}": 1 for n in range(20)}
    assert site.context(machine, "calls")["public"]["count"] == 20
