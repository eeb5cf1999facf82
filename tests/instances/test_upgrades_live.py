"""The pages of upgrades on a real server: dry runs in the sandbox, one instance and many."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import PROGRAM, chromium
from tests.conftest import Server, run_manage_py
from tests.instances.test_views_live import Person

MACHINE = """
import { createMachine, assign } from "npm:xstate@5";
export const allowRead = () => true;
export const allowWrite = () => true;
export default createMachine({
  id: "parcel",
  initial: "packed",
  context: { weight: 1, public: { n: 0 } },
  on: { weigh: { actions: assign({ weight: ({ event }) => event.weight }) } },
  states: {
    packed: { after: { 3600000: "sent", 7200000: "lost" }, on: { send: "sent" } },
    sent: { on: { lose: "lost" } },
    lost: {},
    customs: { invoke: { src: "inspect", onDone: "sent" } },
  },
});
"""
CHANGES = {"packed": "wrapped", "7200000": "9000000"}  # of its second version
MIGRATION = """
export function upgradeState(path, context) {
  if (context.weight === 13) throw new RangeError("too heavy: " + context.weight);
  if (context.weight === 99) for (;;) {}
  if (path[0] === "lost") return ["nowhere"];
  if (context.weight === 7) return ["customs"];
  return path[0] === "packed" ? ["wrapped"] : path;
}
export function upgradeContext(oldPaths, newPaths, context) {
  return { ...context, grams: context.weight * 1000 };
}
"""


class Upgrader(Person):
    def page(self, slug: str, part: str = "") -> str:
        return f"/o/{self.server.org_id}/machines/parcel/instances/{slug}{part}"

    def create(self, slug: str, *events: dict[str, Any]) -> str:
        status, _ = self.call("machines/parcel", {"slug": slug, "machineVersionId": self.old})
        assert status == 200
        for event in events:
            assert self.call(f"machines/parcel/i/{slug}/events", {"event": event})[0] == 200
        return slug

    def upgrade(self, slug: str, do: str) -> str:
        return self.open(self.page(slug, "/upgrade"), {"version": self.new, "do": do})

    old = ""
    new = ""


@pytest.fixture(scope="module")
def person(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Upgrader:
    directory = tmp_path_factory.mktemp("parcel")
    person = Upgrader(server)
    changed = MACHINE
    for old, new in CHANGES.items():
        changed = changed.replace(old, new)
    for text in (MACHINE, changed):
        (directory / "parcel.mjs").write_text(text)
        run_manage_py("deploy", str(directory / "parcel.mjs"), "--data", str(server.data_dir))
        person.old, person.new = person.new, _current(person)
    (directory / "up.mjs").write_text(MIGRATION)
    run_manage_py(
        "deploy_migration", str(directory / "up.mjs"), "--machine", "parcel",
        "--data", str(server.data_dir),
    )  # fmt: skip
    person.sign_in()
    return person


def _current(person: Person) -> str:
    shown = run_manage_py("api", "GET", "machines/parcel", "--data", str(person.server.data_dir))
    return str(json.loads(shown)["currentVersion"]["id"])


# --- One instance -------------------------------------------------------------------------------


def test_dry_run_shows_states_timers_and_context_and_changes_nothing(person):
    slug = person.create("tried")

    shown = person.upgrade(slug, "try")

    assert 'data-tried="ok"' in shown
    assert re.search("packed.*becomes.*wrapped", shown, re.DOTALL)
    assert "grams" in shown
    assert "goes on: after 1 h in packed" in shown
    assert "cancelled: after 2 h in packed" in shown
    assert "new: after 2 h 30 min in wrapped" in shown
    assert 'data-seq="2"' not in person.open(person.page(slug))


@pytest.mark.parametrize(
    ("event", "kind", "why"),
    [
        ({"type": "weigh", "weight": 13}, "throws", "RangeError: too heavy: 13"),
        ({"type": "weigh", "weight": 99}, "over-limit", "too much time or memory"),
        ({"type": "lose"}, "refused", "nowhere"),
    ],
)
def test_dry_run_says_why_it_would_fail(person, event, kind, why):
    events = [{"type": "send"}, event] if event["type"] == "lose" else [event]
    slug = person.create(f"fails-{kind}", *events)

    shown = person.upgrade(slug, "try")

    assert f'data-tried="{kind}"' in shown
    assert why in shown


def test_dry_run_warns_of_a_state_whose_service_will_not_start(person):
    slug = person.create("to-customs", {"type": "weigh", "weight": 7})

    shown = person.upgrade(slug, "try")

    assert "<code>customs</code> begins with a service, and an upgrade starts none." in shown


def test_instance_upgrades_before_its_next_event(person):
    slug = person.create("upgraded")
    before = person.open(person.page(slug))
    person.upgrade(slug, "upgrade")
    pending = person.open(person.page(slug))

    assert person.call(f"machines/parcel/i/{slug}/events", {"event": {"type": "send"}})[0] == 200

    after = person.open(person.page(slug))
    assert "available" in before
    assert "before its next event" in pending
    assert "before its next event" not in after
    assert "upgraded&nbsp;" in after
    assert 'data-seq="3"' in after


def test_upgrade_can_be_cancelled(person):
    slug = person.create("cancelled")
    person.upgrade(slug, "upgrade")

    page = person.upgrade(slug, "cancel")

    assert "before its next event" not in page
    assert "available" in page


# --- In a browser -------------------------------------------------------------------------------


@pytest.fixture
def tab(person: Upgrader) -> Iterator[Any]:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if PROGRAM is None:
        pytest.skip("there is no Chromium on this machine")
    with chromium() as browser:
        context = browser.new_context(base_url=person.server.url, reduced_motion="reduce")
        session = {"name": "sessionid", "value": person.cookie("sessionid")}
        context.add_cookies([session | {"url": person.server.url}])
        tab = context.new_page()
        problems: list[str] = []
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        yield tab
        context.close()
        assert problems == []


def test_upgrade_by_keyboard_and_time_travel_across_it(tab, person):
    slug = person.create("in-the-browser")
    tab.goto(person.page(slug))
    tab.wait_for_selector('.flow-state.is-leaf[data-node="packed"]')

    tab.keyboard.press("u")
    tab.get_by_role("button", name="Dry run").click()
    tab.wait_for_selector('[data-tried="ok"]')
    tab.get_by_role("button", name="Upgrade before the next event").click()
    tab.wait_for_selector("#ihead :text('before its next event')")
    person.call(f"machines/parcel/i/{slug}/events", {"event": {"type": "weigh", "weight": 2}})

    tab.wait_for_selector('.flow-state.is-leaf[data-node="wrapped"]')
    tab.wait_for_selector('#timeline [data-seq="3"]')
    tab.goto(f"{person.page(slug)}?at=1")
    tab.wait_for_selector('.flow-state.is-leaf[data-node="packed"]')
    tab.locator('#timeline [data-seq="2"] a').click()
    tab.wait_for_selector('.flow-state.is-leaf[data-node="wrapped"]')
    tab.locator('#timeline [data-seq="1"] a').click()
    tab.wait_for_selector('.flow-state.is-leaf[data-node="packed"]')


# --- All instances of a version -----------------------------------------------------------------


def test_sample_tells_what_works_from_what_does_not(person):
    person.create("works")
    person.create("too-heavy", {"type": "weigh", "weight": 13})
    person.create("lost", {"type": "send"}, {"type": "lose"})
    path = f"/o/{person.server.org_id}/machines/parcel/versions/{person.old}/upgrade/sample"

    shown = person.open(f"{path}?to={person.new}")

    assert re.search(r"\d+ would upgrade", shown)
    assert "RangeError: too heavy: 13" in shown
    assert "would come to no state" in shown
    assert '/instances/too-heavy">' in shown


def test_all_instances_of_a_version_are_upgraded_from_its_page(tab, person):
    slug = person.create("one-of-all")
    tab.goto(f"/o/{person.server.org_id}/machines/parcel/versions")

    tab.get_by_role("link", name=re.compile("Upgrade its .* to current")).click()
    tab.wait_for_selector("a.mono.name")
    tab.get_by_role("button", name=re.compile("Upgrade .* instances")).click()
    tab.wait_for_selector(":text('They upgrade before their next event')")

    tab.goto(person.page(slug))
    tab.wait_for_selector("#ihead :text('before its next event')")
    person.call(f"machines/parcel/i/{slug}/events", {"event": {"type": "send"}})
    tab.wait_for_selector('#timeline [data-seq="3"]')
