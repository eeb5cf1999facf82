"""Instances that run upgrade to another version of their machine, and lose nothing by it."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

import pytest

from statebacked_site.site_client import ApiError, SiteClient
from tests.acceptance.conftest import MACHINES
from tests.acceptance.polling import eventually
from tests.acceptance.site import CLIENT, INIT, TIMER, UPGRADE, Site, assert_is_linear
from tests.acceptance.threads import together

OLD = ["parcel-xstate5.ts", "parcel-xstate4.ts"]
AFTER_MS = 3000
LATE_MS_MAX = 2000

_numbers = count(1)


@dataclass(frozen=True)
class Parcels:
    """A machine with two versions and a migration from the old one to the new one."""

    site: Site
    machine: str
    old: str
    new: str

    def create(self, slug: str, owner: str = "ada", *events: str) -> None:
        """An instance of the old version, that has processed these events."""
        body = {"slug": slug, "context": {"owner": owner}, "machineVersionId": self.old}
        created = self.site.request("POST", f"/machines/{self.machine}", body)
        assert created.status == 200, created.text
        for event in events:
            assert self.site.send(self.machine, slug, event).status == 200

    def desire(self, slug: str, version: str | None = None) -> None:
        answer = self.site.set_desired_version(self.machine, slug, version or self.new)
        assert (answer.status, answer.text) == (201, "")


def make_parcels(site: Site, file: str = OLD[0]) -> Parcels:
    machine = f"parcel-{next(_numbers)}"
    old = site.deploy(machine, MACHINES / file)
    new = site.deploy(machine, MACHINES / "parcel-v2.ts")
    site.deploy_migration(machine, MACHINES / "parcel-to-v2.ts", old, new)
    return Parcels(site, machine, old, new)


@pytest.fixture(params=OLD, ids=["from 5", "from 4"])
def parcels(site: Site, request: pytest.FixtureRequest) -> Parcels:
    return make_parcels(site, request.param)


def test_an_instance_upgrades_right_before_its_next_event(site: Site, parcels: Parcels):
    machine = parcels.machine
    parcels.create("one", "ada", "touch", "seal")

    parcels.desire("one")
    before = site.state(machine, "one").json
    pending = site.versions(machine, "one")
    answer = site.send(machine, "one", "touch")

    assert before["state"] == {"packing": {"box": "sealed", "label": "blank"}}
    assert pending == (parcels.old, parcels.new)
    assert answer.json["state"] == {"packed": {"box": "sealed", "label": "blank"}}
    assert answer.json["publicContext"] == {"owner": "ada", "touched": 11, "upgraded": True}
    assert site.versions(machine, "one") == (parcels.new, None)
    history = site.history(machine, "one")
    assert_is_linear(history)
    assert [row.kind for row in history] == [INIT, CLIENT, CLIENT, UPGRADE, CLIENT]
    assert history[3].event == {
        "type": "statebacked.upgrade",
        "from": parcels.old,
        "to": parcels.new,
    }
    assert history[3].state == answer.json["state"]
    assert history[3].context == {"public": {"owner": "ada", "touched": 1, "upgraded": True}}
    listed = site.request("GET", f"/machines/{machine}/i/one/events").json["transitions"]
    assert listed[1]["kind"] == "upgrade"
    eventually(lambda: any("upgraded" in line for line in site.log("one")), what="its log")


def test_others_stay_where_they_are(site: Site, parcels: Parcels):
    parcels.create("stays")
    parcels.create("moves")
    parcels.desire("moves")

    site.send(parcels.machine, "moves", "touch")
    stayed = site.send(parcels.machine, "stays", "touch")

    assert stayed.json["publicContext"] == {"touched": 1}
    assert site.versions(parcels.machine, "stays") == (parcels.old, None)
    assert site.versions(parcels.machine, "moves") == (parcels.new, None)


def test_an_upgraded_instance_is_rehydrated_on_its_new_version(site: Site, parcels: Parcels):
    parcels.create("one")
    parcels.desire("one")
    site.send(parcels.machine, "one", "seal")
    site.kill_runners()

    answer = site.send(parcels.machine, "one", "touch")

    assert answer.json["state"] == {"packed": {"box": "sealed", "label": "blank"}}
    assert answer.json["publicContext"]["touched"] == 10


def test_history_states_remember_across_an_upgrade(site: Site, parcels: Parcels):
    parcels.create("halts", "ada", "seal", "halt")
    parcels.desire("halts")

    answer = site.send(parcels.machine, "halts", "resume")

    assert answer.json["state"] == {"packed": {"box": "sealed", "label": "blank"}}


def test_a_timer_keeps_its_time(site: Site, parcels: Parcels):
    machine = parcels.machine
    parcels.create("travels", "ada", "load")
    loaded_at = site.history(machine, "travels")[-1].created_at
    time.sleep(1)  # so that a timer that began anew would be late
    parcels.desire("travels")

    moving = site.send(machine, "travels", "touch")
    eventually(lambda: site.state(machine, "travels").json["state"] == "missing")

    assert moving.json["state"] == {"away": "moving"}
    history = site.history(machine, "travels")
    assert [row.kind for row in history] == [INIT, CLIENT, UPGRADE, CLIENT, TIMER]
    assert 0 <= history[-1].created_at - loaded_at - AFTER_MS < LATE_MS_MAX
    assert history[2].created_at - loaded_at >= 1000


def test_a_timer_may_be_the_event_that_upgrades(site: Site, parcels: Parcels):
    parcels.create("waits", "ada", "load")
    parcels.desire("waits")

    eventually(lambda: site.state(parcels.machine, "waits").json["state"] == "missing")

    history = site.history(parcels.machine, "waits")
    assert [row.kind for row in history] == [INIT, CLIENT, UPGRADE, TIMER]


def test_a_timer_of_a_state_that_is_left_never_fires(site: Site, parcels: Parcels):
    parcels.create("home", "ada", "load")
    parcels.desire("home")

    answer = site.send(parcels.machine, "home", {"type": "deliver"})

    assert answer.json["done"] is True
    pending = site.query("SELECT count(*) FROM delivery WHERE target_slug = ?", "home")
    assert pending == [(0,)]


def test_a_failing_migration_leaves_the_instance_as_it_was(site: Site, parcels: Parcels):
    machine = parcels.machine
    parcels.create("frail", "fragile", "seal")
    parcels.desire("frail")
    before = site.state(machine, "frail").json

    failed = site.send(machine, "frail", "touch")

    assert failed.outcome == (500, "migration-failed")
    assert site.state(machine, "frail").json == before
    assert site.versions(machine, "frail") == (parcels.old, parcels.new)
    assert [row.kind for row in site.history(machine, "frail")] == [INIT, CLIENT]

    # Either the wish is taken back …
    parcels.desire("frail", parcels.old)
    assert site.send(machine, "frail", "touch").json["publicContext"] == {"touched": 1}
    # … or a better migration is deployed: the newest is used.
    careful = MACHINES / "parcel-to-v2-careful.ts"
    site.deploy_migration(machine, careful, parcels.old, parcels.new)
    parcels.desire("frail")
    answer = site.send(machine, "frail", "touch")
    assert answer.json["publicContext"] == {"owner": "fragile", "touched": 11, "upgraded": True}


def test_the_new_version_says_who_may_send_and_the_upgrade_stands(site: Site):
    parcels = make_parcels(site)
    parcels.create("one")
    stranger = {"sub": "stranger"}  # whom the old version lets
    assert site.send(parcels.machine, "one", "touch", act=stranger).status == 200
    parcels.desire("one")

    refused = site.send(parcels.machine, "one", "touch", act=stranger)

    assert refused.outcome == (403, "rejected-by-machine-authorizer")
    assert site.versions(parcels.machine, "one") == (parcels.new, None)
    assert [row.kind for row in site.history(parcels.machine, "one")] == [INIT, CLIENT, UPGRADE]


@pytest.mark.parametrize(
    ("owner", "event", "outcome", "text"),
    [
        (
            "ada",
            "load",
            "changed",
            "from `packed.box.open`, `packed.label.blank` to `away.moving`.",
        ),
        ("ada", "deliver", "unchanged", "`deliver` is not handled in `packed.box.open`"),
        (
            "fragile",
            "load",
            "failed",
            "The upgrade to the desired version failed: `Error: a fragile",
        ),
    ],
)
def test_an_explanation_tells_the_upgrade_and_the_event_apart(
    site: Site, owner: str, event: str, outcome: str, text: str
):
    parcels = make_parcels(site)
    parcels.create("one", owner)
    parcels.desire("one")

    path = f"/machines/{parcels.machine}/i/one/events?explain=1"
    explanation = site.request("POST", path, {"event": event}).json["explanation"]

    assert explanation["outcome"] == outcome
    assert text in explanation["text"]
    was_upgraded = explanation["text"].startswith("The instance was upgraded to its desired")
    assert was_upgraded == (outcome != "failed")


def test_a_version_without_a_path_is_refused(site: Site, parcels: Parcels):
    parcels.create("one")
    parcels.desire("one")
    site.send(parcels.machine, "one", "touch")

    refused = site.set_desired_version(parcels.machine, "one", parcels.old)

    assert refused.outcome == (400, "no-migration-path")
    assert site.send(parcels.machine, "one", "seal").status == 200


def test_events_and_upgrades_at_the_same_time_lose_nothing(site: Site, parcels: Parcels):
    machine, events = parcels.machine, 40
    parcels.create("busy")

    def send(number: int) -> int:
        if number == events // 2:
            parcels.desire("busy")
        return site.send(machine, "busy", {"type": "touch"}).status

    statuses = together([partial(send, number) for number in range(events)])

    assert statuses == [200] * events
    history = site.history(machine, "busy")
    assert_is_linear(history)
    kinds = [row.kind for row in history]
    assert (kinds.count(CLIENT), kinds.count(UPGRADE)) == (events, 1)
    before = kinds.index(UPGRADE) - 1
    touched = before + 10 * (events - before)
    assert history[-1].context["public"]["touched"] == touched


def test_all_instances_of_a_version_are_upgraded_by_one_request(site: Site, parcels: Parcels):
    machine = parcels.machine
    for number in range(5):
        parcels.create(f"p-{number}")
    site.send(machine, "p-0", "touch")  # in memory, and the others perhaps not

    path = f"/machines/{machine}/upgrades"
    first = site.request("POST", path, {"to": parcels.new, "limit": 3}).json
    second = site.request(
        "POST", path, {"to": parcels.new, "limit": 3, "cursor": first["cursor"]}
    ).json
    answers = [site.send(machine, f"p-{number}", "touch").json for number in range(5)]

    assert (first["matched"], first["changed"]) == (3, 3)
    assert second == {"matched": 2, "changed": 2}
    assert [answer["publicContext"]["touched"] for answer in answers] == [11, 10, 10, 10, 10]


def test_upgrading_all_of_them_disturbs_no_event(site: Site, parcels: Parcels):
    machine, slugs, rounds = parcels.machine, [f"p-{number}" for number in range(20)], 10
    for slug in slugs:
        parcels.create(slug)

    def send(slug: str) -> list[int]:
        return [site.send(machine, slug, "touch").status for _ in range(rounds)]

    def upgrade_all() -> list[int]:
        # Again and again: they upgrade meanwhile, and it is to find them as they are.
        path, body = f"/machines/{machine}/upgrades", {"to": parcels.new}
        return [site.request("POST", path, body).status for _ in range(rounds)]

    senders: list[Callable[[], list[int]]] = [partial(send, slug) for slug in slugs]
    statuses = together([*senders, upgrade_all])

    assert statuses == [[200] * rounds] * (len(slugs) + 1)
    for slug in slugs:
        assert site.send(machine, slug, "touch").status == 200
        history = site.history(machine, slug)
        assert_is_linear(history)
        kinds = [row.kind for row in history]
        assert (kinds.count(CLIENT), kinds.count(UPGRADE)) == (rounds + 1, 1)
        assert site.versions(machine, slug) == (parcels.new, None)


def test_a_wish_outlives_the_server(own_site: Site):
    own_site.start()
    parcels = make_parcels(own_site)
    parcels.create("survives", "ada", "load")
    parcels.desire("survives")
    own_site.restart()

    answer = own_site.send(parcels.machine, "survives", "touch")
    own_site.restart()

    assert answer.json["publicContext"] == {"owner": "ada", "touched": 10, "upgraded": True}
    assert own_site.versions(parcels.machine, "survives") == (parcels.new, None)
    eventually(lambda: own_site.state(parcels.machine, "survives").json["state"] == "missing")


def test_what_is_no_migration_is_explained_and_not_created(site: Site, parcels: Parcels):
    source = json.dumps("not a function")
    problems = {
        "export const upgradeState = (path) => path;": "upgradeContext",
        f"export const upgradeState = {source}; export const upgradeContext = () => ({{}});": (
            "upgradeState"
        ),
        "export const upgradeState = (": "",
        "throw new Error('at its start');": "at its start",
        "import 'left-pad'; export const upgradeState = 1;": "left-pad",
    }

    for code, part in problems.items():
        answer = upload(parcels, code)
        assert answer[:2] == (400, "invalid-parameter"), code
        assert part in answer[2]
    listed = site.request("GET", f"/machines/{parcels.machine}/migrations").json["migrations"]
    assert len(listed) == 1


def upload(parcels: Parcels, code: str) -> tuple[int, str, str]:
    """The refusal of code that is deployed as a migration."""
    site = parcels.site
    client = SiteClient(site.api_url, site.access_token, site.org_id)
    with pytest.raises(ApiError) as refused:
        client.publish_migration(parcels.machine, code.encode(), parcels.old, parcels.new)
    return refused.value.status, refused.value.code, str(refused.value)
