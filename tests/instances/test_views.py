"""The pages of instances, through Django's client; the engine is a fake one."""

import json
import re

import pytest
from django.db.models import F
from django.test import Client
from django.urls import reverse

from authz.models import Membership
from instances import places
from instances.engine import door
from instances.engine.holding import HELD_MS, Resume
from instances.models import Delivery, Instance
from instances.pages import definitions, timeline, upgrade_sample
from instances.views import upgrading as upgrading_views
from machines import diagrams, state_counts
from tests.factories import (
    make_instance,
    make_log_entry,
    make_machine,
    make_member,
    make_migration,
    make_org,
    make_transition,
    make_version,
)
from tests.fake_door import fake_door
from tests.instances.graphs import order_definition, parallel_definition
from tests.pages import text_of

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>\"'>{{ x }}\u202e" + "x" * 10_000


@pytest.fixture
def org():
    return make_org()


@pytest.fixture
def machine(org):
    machine = make_machine(org, with_version=True)
    assert machine.current_version_id is not None
    definitions.keep(machine.current_version_id, order_definition())
    return machine


@pytest.fixture
def admin(org):
    return signed_in(org, Membership.Role.ADMIN)


def signed_in(org, role):
    client = Client()
    client.force_login(make_member(org, role))
    return client


def state(value):
    return json.dumps({"state": value, "tags": [], "done": False}, separators=(",", ":"))


def list_url(machine):
    return reverse("instances-page", args=[machine.org.public_id, machine.slug])


def url_of(instance, name="instance-page", *args):
    names = [instance.machine.org.public_id, instance.machine.slug, instance.slug]
    return reverse(name, args=[*names, *args])


def listed(response):
    return re.findall(r"data-row>([^<]*)<", response.content.decode())


def make_life(machine, slug="order-1"):
    """draft, placed, paid: three transitions."""
    instance = make_instance(
        machine, slug, seq=3, state=state("paid"), context='{"total":9,"public":{"n":3}}'
    )
    contexts = ['{"total":7}', '{"total":7,"public":{"n":2}}', instance.context]
    create, place, pay = (
        {"state": state(value), "context": context}
        for value, context in zip(["draft", "placed", "paid"], contexts, strict=True)
    )
    make_transition(instance, 1, kind=0, event='{"type":"xstate.init"}', **create)
    make_transition(instance, 2, event='{"type":"place"}', auth_context='{"sub":"u_17"}', **place)
    make_transition(instance, 3, event='{"type":"pay","card":"42"}', **pay)
    return instance


# --- The list -----------------------------------------------------------------------------------


def test_list_shows_newest_first(admin, machine):
    for slug in ("a", "c", "b"):
        make_instance(machine, slug)

    assert listed(admin.get(list_url(machine))) == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("query", "slugs"),
    [
        ({"q": "or"}, ["order-2", "order-1"]),
        ({"state": "delivery"}, ["order-2"]),
        ({"state": "delivery.packed"}, ["order-2"]),
        ({"state": "packed"}, []),
        ({"status": "paused"}, ["cart"]),
        ({"sort": "name"}, ["cart", "order-1", "order-2"]),
        ({"sort": "updated"}, ["order-1", "cart", "order-2"]),
        ({"status": "running", "q": "order-1"}, ["order-1"]),
    ],
)
def test_filters_and_orders(admin, machine, query, slugs):
    make_instance(machine, "order-1", ts=9)
    make_instance(machine, "order-2", ts=1, state=state({"delivery": "packed", "payment": "x"}))
    make_instance(machine, "cart", ts=5, status=Instance.Status.PAUSED)
    make_instance(machine, "gone~1", status=Instance.Status.DELETED)

    assert listed(admin.get(list_url(machine), query)) == slugs


def test_filter_by_version(admin, machine):
    other = make_version(machine, "v2")
    make_instance(machine, "old")
    make_instance(machine, "new", version=other)

    r = admin.get(list_url(machine), {"version": other.public_id})

    assert listed(r) == ["new"]


def test_pages_hold_every_instance_once(admin, machine):
    for number in range(120):
        make_instance(machine, f"i-{number:03d}", ts=number // 7)
    for order in ("created", "-created", "name", "-name", "updated", "-updated"):
        seen: list[str] = []
        url: str | None = f"{list_url(machine)}?sort={order}"
        while url:
            r = admin.get(url)
            seen += listed(r)
            found = re.search(r'href="([^"]*)" rel="next"', r.content.decode())
            url = list_url(machine) + found[1].replace("&amp;", "&") if found else None
        assert len(seen) == len(set(seen)) == 120, order


def test_large_machines_are_looked_through_in_windows(admin, machine, monkeypatch):
    monkeypatch.setattr("instances.pages.listing.WINDOW", 10)
    monkeypatch.setattr("instances.pages.listing.SCAN", 20)
    for number in range(60):
        make_instance(machine, f"i-{number:02d}", state=state("rare" if number == 5 else "idle"))

    first = admin.get(list_url(machine), {"state": "rare", "status": "running"})
    assert listed(first) == []
    assert "None so far" in first.content.decode()

    url, found = list_url(machine) + "?state=rare&status=running", []
    for _ in range(3):
        r = admin.get(url)
        found += listed(r)
        further = re.search(r'href="(\?[^"]*after=[^"]*)"', r.content.decode())
        url = list_url(machine) + further[1].replace("&amp;", "&") if further else url
    assert found == ["i-05"]


def test_states_and_versions_of_many_are_found_without_looking_through(admin, machine, monkeypatch):
    monkeypatch.setattr("instances.pages.listing.WINDOW", 10)
    other = make_version(machine, "v2")
    ids = [
        make_instance(
            machine,
            f"i-{number:03d}",
            state=state({"delivery": "packed"} if number % 4 else "idle"),
            version=other if number % 3 else machine.current_version,
        ).pk
        for number in range(240)
    ]
    places.repair(ids)

    def all_pages(query: str) -> list[str]:
        seen: list[str] = []
        url: str | None = f"{list_url(machine)}{query}"
        while url:
            r = admin.get(url)
            seen += listed(r)
            found = re.search(r'href="([^"]*)" rel="next"', r.content.decode())
            url = list_url(machine) + found[1].replace("&amp;", "&") if found else None
        return seen

    newest_first = [f"i-{number:03d}" for number in reversed(range(240))]
    in_delivery = [slug for slug in newest_first if int(slug[2:]) % 4]
    assert all_pages("?state=delivery") == in_delivery
    assert all_pages("?state=delivery.packed&sort=-created") == in_delivery[::-1]
    assert all_pages(f"?version={other.public_id}") == [s for s in newest_first if int(s[2:]) % 3]
    assert all_pages(f"?version={other.public_id}&state=idle") == [
        slug for slug in newest_first if int(slug[2:]) % 3 and not int(slug[2:]) % 4
    ]
    assert all_pages("?state=nowhere") == []
    assert (
        "180 of 240 instances"
        in admin.get(list_url(machine), {"state": "delivery"}).content.decode()
    )


def test_an_instance_that_has_just_moved_is_not_listed_where_it_was(admin, machine, monkeypatch):
    monkeypatch.setattr("instances.pages.listing.WINDOW", 1)
    made = [make_instance(machine, f"i-{number}", state=state("idle")) for number in range(3)]
    places.repair([instance.pk for instance in made])
    Instance.objects.filter(pk=made[1].pk).update(state=state("rare"))

    assert listed(admin.get(list_url(machine), {"state": "idle"})) == ["i-2", "i-0"]


def test_paused_ones_of_many_are_found(admin, machine, monkeypatch):
    monkeypatch.setattr("instances.pages.listing.WINDOW", 10)
    monkeypatch.setattr("instances.pages.listing.SCAN", 20)
    for number in range(60):
        status = Instance.Status.PAUSED if number in (2, 40) else Instance.Status.RUNNING
        make_instance(machine, f"i-{number:02d}", status=status)

    assert listed(admin.get(list_url(machine), {"status": "paused"})) == ["i-40", "i-02"]


@pytest.mark.parametrize(
    "query", [{"sort": "x"}, {"status": "x"}, {"version": "x"}, {"after": "x"}, {"after": "WzFd\0"}]
)
def test_bad_filters_are_refused(admin, machine, query):
    make_instance(machine)

    assert admin.get(list_url(machine), query).status_code == 400


def test_empty_list_teaches_and_no_match_offers_to_clear(admin, machine):
    assert "No instance yet" in admin.get(list_url(machine)).content.decode()

    make_instance(machine)

    assert "No instance matches" in admin.get(list_url(machine), {"q": "zzz"}).content.decode()


def test_list_asks_few_queries(admin, machine, django_assert_max_num_queries):
    for number in range(60):
        make_instance(machine, f"i-{number}")

    with django_assert_max_num_queries(16):
        admin.get(list_url(machine))


def test_bad_context_is_said_in_the_dialog(admin, machine):
    r = admin.post(list_url(machine), {"slug": "new", "context": "{"})

    assert r.status_code == 400
    assert "The context is not valid JSON" in r.content.decode()
    assert "data-open-now" in r.content.decode()
    assert not Instance.objects.exists()


def test_reader_may_not_create(org, machine):
    reader = signed_in(org, Membership.Role.READ)

    assert "needs the role write" in reader.get(list_url(machine)).content.decode()
    assert reader.post(list_url(machine), {"slug": "new"}).status_code == 403


def test_only_an_admin_creates_as_somebody_else(org, machine):
    writer = signed_in(org, Membership.Role.WRITE)

    r = writer.post(list_url(machine), {"slug": "new", "claims": '{"role": "staff"}'})

    assert r.status_code == 403
    assert "needs the role admin" in r.content.decode()


# --- One instance -------------------------------------------------------------------------------


def test_page_shows_history_newest_first(admin, machine):
    instance = make_life(machine)

    page = admin.get(url_of(instance)).content.decode()

    assert re.findall(r'<li data-seq="(\d+)"', page) == ["3", "2", "1"]
    assert "u_17" in page
    assert lights(page) == {
        "seq": 3, "version": machine.current_version_id, "active": ["", "paid"], "taken": 2,
        "next": {"4": "cancel"}, "past": False, "tab": "timeline",
        "picture": picture_url(machine),
    }  # fmt: skip


def picture_url(machine):
    version = machine.current_version.public_id
    return reverse("version-diagram", args=[machine.org.public_id, machine.slug, version])


def lights(page):
    found = re.search(r'data-lights="([^"]*)"', page)
    assert found is not None
    return json.loads(found[1].replace("&quot;", '"'))


def test_moment_of_the_past(admin, machine):
    instance = make_life(machine)

    page = admin.get(url_of(instance), {"at": 2, "tab": "context"}).content.decode()

    assert lights(page)["active"] == ["", "placed"]
    assert lights(page)["taken"] == 0
    assert "transition 2 of 3" in page
    assert "Return to now" in page
    assert "2 changes" not in page
    assert "1 change" in page
    assert "You are looking at the past" in page


def test_parts_of_a_moment_come_alone(admin, machine):
    instance = make_life(machine)

    part = admin.get(url_of(instance, "instance-moment"), {"at": 1, "tab": "raw"}).content.decode()

    assert "<html" not in part
    ids = re.findall(r'^<\w+ [^>]*?id="([a-z]+)"', part, re.MULTILINE)
    assert ids == ["ihead", "past", "scrubber", "tabs", "panel", "lights"]
    assert lights(part)["active"] == ["", "draft"]


@pytest.mark.parametrize("query", [{"at": "0"}, {"at": "9999"}, {"at": "-1"}, {"tab": "x"}])
def test_moments_that_are_none(admin, machine, query):
    instance = make_life(machine)

    assert admin.get(url_of(instance), query).status_code in (200, 400, 404)


def test_transitions_that_are_gone_are_said_to_be(admin, machine):
    instance = make_instance(machine, seq=9)

    assert admin.get(url_of(instance), {"at": 4}).status_code == 404
    assert admin.get(url_of(instance)).status_code == 200


def seqs(response):
    return [int(seq) for seq in re.findall(r'<li data-seq="(\d+)"', response.content.decode())]


def test_rows_come_in_blocks(admin, machine):
    instance = make_instance(machine, seq=95)
    for seq in range(1, 96):
        make_transition(instance, seq, state=state(f"s{seq}"))
    rows = url_of(instance, "instance-rows")

    assert seqs(admin.get(rows, {"blocks": "9"})) == [95, 94, 93, 92, 91]
    assert seqs(admin.get(rows, {"blocks": "0,4"})) == [*range(50, 40, -1), *range(10, 0, -1)]
    assert "<bdi>s40</bdi>" in admin.get(rows, {"blocks": "4"}).content.decode()  # left by 41
    assert seqs(admin.get(rows, {"blocks": "77,999999999999"})) == []
    assert admin.get(rows, {"blocks": "x"}).status_code == 400
    with_newest = admin.get(url_of(instance, "instance-moment"), {"blocks": "newest"})
    assert seqs(with_newest)[:3] == [95, 94, 93]


def test_page_begins_with_what_is_seen_around_the_moment(admin, machine):
    instance = make_instance(machine, seq=95)
    for seq in range(1, 96):
        make_transition(instance, seq)

    shown = seqs(admin.get(url_of(instance), {"at": 50}))

    assert 50 in shown
    assert shown[0] > 50
    assert len(shown) < 50
    assert seqs(admin.get(url_of(instance, "instance-timeline"), {"at": 50})) == shown


def test_timeline_is_filtered_by_event_source_and_errors(admin, machine):
    instance = make_instance(machine, seq=6)
    make_transition(instance, 1, kind=0, event='{"type":"xstate.init"}')
    make_transition(instance, 2, event='{"type":"pay"}')
    make_transition(instance, 3, event='{"type":"p\\u0061y"}')
    make_transition(instance, 4, kind=2, event='{"type":"remind","of":"pay"}')
    make_transition(instance, 5, kind=4, event='{"type":"xstate.error.actor.x","error":"no"}')
    make_transition(instance, 6, kind=4, event='{"type":"xstate.done.actor.x"}')

    def found(**query):
        return seqs(admin.get(url_of(instance), query))

    assert found(event="pay") == [3, 2]
    assert found(source="timer") == [4]
    assert found(source="service") == [6, 5]
    assert found(source="errors") == [5]
    assert found(event="pay", source="timer") == []
    assert admin.get(url_of(instance), {"source": "nowhere"}).status_code == 400


def test_filter_looks_through_long_histories_in_parts(admin, machine, monkeypatch):
    monkeypatch.setattr(timeline, "LOOKED_AT_MAX", 20)
    instance = make_instance(machine, seq=60)
    for seq in range(1, 61):
        make_transition(instance, seq, kind=2 if seq == 5 else 1)
    rows = url_of(instance, "instance-rows")

    seen, before = [], 61
    while before:
        r = admin.get(rows, {"source": "timer", "before": before})
        seen += seqs(r)
        more = re.search(r'data-before="(\d+)"', r.content.decode())
        before = int(more[1]) if more else 0

    assert seen == [5]


def test_lanes_show_each_region(admin, machine):
    definitions.keep(machine.current_version_id, parallel_definition())
    instance = make_instance(machine, seq=2)
    make_transition(instance, 1, state=state({"delivery": "packed", "payment": "open"}))
    make_transition(instance, 2, state=state({"delivery": "sent", "payment": "open"}))

    page = admin.get(url_of(instance), {"lanes": "1"}).content.decode()

    first_row = page[page.index('data-seq="2"') : page.index('data-seq="1"')]
    assert re.findall(r'<bdi class="lane( moved)?">([^<]*)<', first_row) == [
        (" moved", "sent"),
        ("", "open"),
    ]
    assert 'class="lanenames"' in page
    assert 'name="lanes"' in page


def test_page_does_not_wait_for_a_picture_that_was_not_drawn(admin, machine, monkeypatch):
    def describe(code):
        raise AssertionError("the page ran the machine's code")

    monkeypatch.setattr(diagrams, "describe", describe)
    instance = make_life(machine)

    page = admin.get(url_of(instance)).content.decode()

    assert f'hx-get="{picture_url(machine)}?view="' in page


def test_logs_of_a_moment(admin, machine):
    instance = make_life(machine)
    at = instance.created_at
    make_log_entry(instance, "of the second", at + 2)
    make_log_entry(instance, "of the third", at + 50)

    then = admin.get(url_of(instance), {"tab": "logs", "at": 2}).content.decode()
    now = admin.get(url_of(instance), {"tab": "logs"}).content.decode()

    assert "of the second" in then
    assert "of the third" not in then
    assert "of the third" in now


def test_a_long_line_is_folded_as_on_the_logs_page(admin, machine):
    instance = make_life(machine)
    make_log_entry(instance, "a" * 800 + "b" * 1_234, instance.created_at)

    page = admin.get(url_of(instance), {"tab": "logs"}).content.decode()

    assert "a" * 800 + "<details><summary>1,234 more characters</summary>" + "b" * 1_234 in page


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("ordr-1002", ["order-1002", "order-1001"]),
        ("ORDER-1002", ["order-1002", "order-1001"]),
        ("1002", ["order-1002"]),
        ("something-else", []),
    ],
)
def test_what_is_not_there_offers_the_likest_names(admin, machine, asked, offered):
    for slug in ("order-1001", "order-1002", "cart-7"):
        make_instance(machine, slug)
    make_instance(machine, f"{asked}-gone", status=Instance.Status.DELETED)
    address = f"/o/{machine.org.public_id}/machines/{machine.slug}/instances"

    answer = admin.get(f"{address}/{asked}")

    assert answer.status_code == 404
    assert re.findall(f'href="{address}/([^"]*)"', answer.content.decode()) == offered


def test_hostile_texts_are_inert(admin, machine):
    instance = make_instance(
        machine, seq=1, state=state(HOSTILE), context=json.dumps({HOSTILE: HOSTILE})
    )
    make_transition(
        instance, 1, event=json.dumps({"type": HOSTILE}), state=instance.state,
        context=instance.context, auth_context=json.dumps({"sub": HOSTILE}),
        report=json.dumps({"actions": [HOSTILE], "started": [], "stopped": []}),
    )  # fmt: skip
    make_log_entry(instance, HOSTILE, instance.created_at)

    for tab in ("timeline", "context", "logs", "raw", "timers", "family"):
        page = admin.get(url_of(instance), {"tab": tab}).content.decode()
        assert "<script>alert" not in page, tab
    rows = admin.get(url_of(instance, "instance-rows"), {"blocks": "0"}).content.decode()
    assert max(map(len, re.findall(r">([^<]*)<", rows))) < 400  # no name fills the timeline
    assert "<script>alert" not in admin.get(list_url(machine)).content.decode()
    drawer = admin.get(url_of(instance, "instance-send"), {"event": HOSTILE}).content.decode()
    assert "<script>alert" not in drawer


def test_family_is_a_tree_with_links_and_present_states(admin, machine):
    parent = make_instance(machine, "the-parent", state=state("placed"))
    middle = make_instance(machine, "the-middle", parent_id=parent.pk, parent_child=HOSTILE)
    child = make_instance(machine, "the-child", parent_id=middle.pk, parent_child="kid")
    to = {"machineName": machine.slug, "machineInstanceName": "nobody"}
    make_transition(middle, 1, effects=json.dumps([{"t": "send", "to": to}]))

    page = admin.get(url_of(middle), {"tab": "family"}).content.decode()

    tree = page[page.index('aria-label="Parent and children"') : page.index("<h2>Messages</h2>")]
    assert re.findall(r"<bdi>(the-[a-z]+)<", tree) == ["the-parent", "the-middle", "the-child"]
    assert f'href="{url_of(parent)}"' in tree
    assert f'href="{url_of(child)}"' in tree
    assert "placed" in tree
    messages = page[page.index("<h2>Messages</h2>") :]
    assert "not there" in messages
    assert "1 sent" in messages
    assert "<script>alert" not in page


def test_family_of_one_teaches_what_would_be_there(admin, machine):
    page = admin.get(url_of(make_life(machine)), {"tab": "family"}).content.decode()

    assert "No relatives" in page


def test_instances_of_other_orgs_are_not_there(machine):
    instance = make_life(machine)
    stranger = signed_in(make_org("Other"), Membership.Role.ADMIN)

    for name in ("instance-page", "instance-rows", "instance-moment", "instance-send"):
        assert stranger.get(url_of(instance, name)).status_code == 404
    assert stranger.get(list_url(machine)).status_code == 404


def test_signed_out_visitor_is_sent_to_sign_in(client, machine):
    instance = make_life(machine)

    r = client.get(url_of(instance))

    assert r.status_code == 302
    assert reverse("account_login") in r["location"]


# --- Actions ------------------------------------------------------------------------------------


def test_pause_and_resume(admin, machine, fake_door):
    instance = make_life(machine)

    admin.post(url_of(instance, "instance-pause"), {"status": "paused"})
    instance.refresh_from_db()
    assert instance.status == Instance.Status.PAUSED

    admin.post(url_of(instance, "instance-pause"), {"status": "running"})
    instance.refresh_from_db()
    assert instance.status == Instance.Status.RUNNING


def test_delete_needs_the_name(admin, machine, fake_door):
    instance = make_life(machine)
    url = url_of(instance, "instance-delete")

    assert "<b>3</b> transitions" in admin.get(url).content.decode()
    assert "not the name" in admin.post(url, {"name": "order"}).content.decode()
    assert Instance.objects.exists()

    r = admin.post(url, {"name": "order-1"})

    assert r["HX-Redirect"] == list_url(machine)
    assert not Instance.objects.exists()


@pytest.mark.parametrize("role", [Membership.Role.READ, Membership.Role.WRITE])
def test_only_admins_pause_and_delete(org, machine, fake_door, role):
    instance = make_life(machine)
    member = signed_in(org, role)

    assert member.post(url_of(instance, "instance-pause"), {"status": "paused"}).status_code == 403
    assert member.post(url_of(instance, "instance-delete"), {"name": "order-1"}).status_code == 403
    assert "needs the role admin" in member.get(url_of(instance)).content.decode()
    assert fake_door.calls == []


def test_reader_sees_that_sending_needs_a_role(org, machine):
    instance = make_life(machine)
    reader = signed_in(org, Membership.Role.READ)

    assert "needs the role write" in reader.get(url_of(instance)).content.decode()
    assert reader.post(url_of(instance, "instance-send"), {"event": "pay"}).status_code == 403


def test_writer_may_not_choose_claims(org, machine):
    instance = make_life(machine)
    writer = signed_in(org, Membership.Role.WRITE)

    r = writer.post(
        url_of(instance, "instance-send"), {"event": "pay", "as": "claims", "claims": "{}"}
    )

    assert "needs the role admin" in r.content.decode()


def test_drawer_sorts_events_and_offers_what_was_sent_before(admin, machine):
    instance = make_life(machine)

    drawer = admin.get(url_of(instance, "instance-send")).content.decode()

    here, elsewhere = drawer.split("Handled elsewhere")
    assert 'value="cancel"' in here
    assert 'value="pay"' in elsewhere
    assert offered(elsewhere, "pay") == [{"card": "42"}]


def offered(drawer, event_type):
    """The payloads that the drawer offers for an event."""
    found = re.search(f'value="{event_type}" data-payloads="([^"]*)"', drawer)
    assert found is not None
    return [json.loads(text or "{}") for text in json.loads(found[1].replace("&quot;", '"'))]


def test_drawer_learns_payloads_of_what_other_instances_were_sent(admin, machine):
    instance = make_instance(machine, "fresh", seq=1, state=state("placed"))
    make_transition(instance, 1, kind=0, event='{"type":"xstate.init"}')
    other = make_instance(machine, "other", seq=4)
    for seq, card in [(2, "1"), (3, "2"), (4, "2")]:
        make_transition(other, seq, event=json.dumps({"type": "pay", "card": card}))

    drawer = admin.get(url_of(instance, "instance-send")).content.decode()

    assert offered(drawer, "pay") == [{"card": "2"}, {"card": "1"}]


def test_drawer_offers_the_claims_of_recent_senders_to_admins_alone(admin, org, machine):
    instance = make_life(machine)
    writer = signed_in(org, Membership.Role.WRITE)

    shown = admin.get(url_of(instance, "instance-send")).content.decode()
    hidden = writer.get(url_of(instance, "instance-send")).content.decode()

    assert "u_17" in shown
    assert "u_17" not in hidden


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        ({}, "Choose an event"),
        ({"event": "pay", "payload": "{"}, "not valid JSON"),
        ({"event": "pay", "payload": "[]"}, "must be a JSON object"),
        ({"event": "xstate.init"}, "belong to XState"),
        ({"event": "pay", "as": "claims", "claims": "1"}, "must be a JSON object"),
    ],
)
def test_bad_events_are_complained_about(admin, machine, form, complaint):
    instance = make_life(machine)

    assert complaint in admin.post(url_of(instance, "instance-send"), form).content.decode()


def test_timers_are_fired_and_cancelled(admin, machine):
    instance = make_life(machine)
    timers = [make_timer(instance, "xstate.after.60000.order.placed"), make_timer(instance, "tick")]

    page = admin.get(url_of(instance), {"tab": "timers"}).content.decode()
    assert "after 1 min in placed" in page

    admin.post(url_of(instance, "instance-timer", timers[0].pk), {"do": "fire"})
    admin.post(url_of(instance, "instance-timer", timers[1].pk), {"do": "cancel"})

    (left,) = Delivery.objects.all()
    assert left == timers[0]
    assert left.due_at < 2_000_000_000_000


def test_timers_of_a_paused_instance_are_held(admin, machine, fake_door):
    instance = make_life(machine)
    Instance.objects.filter(pk=instance.pk).update(status=1, paused_at=1_700_000_000_000)
    timer = make_timer(instance, "tick")
    Delivery.objects.update(due_at=F("due_at") + HELD_MS)

    page = admin.get(url_of(instance), {"tab": "timers"}).content.decode()
    refused = admin.post(url_of(instance, "instance-timer", timer.pk), {"do": "fire"})
    everywhere = admin.get(reverse("timers-page", args=[machine.org.public_id])).content.decode()

    assert "held</span> while the instance is paused, planned" in page
    assert "2096-10-02" in page
    assert 'name="timers" value="keep-remaining"' in page
    assert 'title="Its instance is paused">held' in everywhere
    assert refused.status_code == 409
    assert Delivery.objects.get().due_at >= HELD_MS


def test_resuming_passes_on_when_timers_fire(admin, machine, fake_door):
    instance = make_life(machine)
    url = url_of(instance, "instance-pause")

    admin.post(url, {"status": "running", "timers": "fire-now"})
    refused = admin.post(url, {"status": "running", "timers": "sometime"})

    running = Instance.Status.RUNNING
    assert fake_door.calls == [("set_status", (instance.pk, running, Resume.FIRE_NOW))]
    assert refused.status_code == 400


def make_timer(instance, event_type):
    return Delivery.objects.create(
        kind=0,
        org_id=instance.org_id,
        target_machine_id=instance.machine_id,
        target_slug=instance.slug,
        event=json.dumps({"type": event_type}),
        due_at=4_000_000_000_000,
        created_at=1,
    )


def test_list_tells_of_new_instances(admin, machine):
    first = make_instance(machine, "a")

    before = admin.get(list_url(machine), {"newer_than": first.pk}).content.decode()
    make_instance(machine, "b")
    after = admin.get(list_url(machine), {"newer_than": first.pk}).content.decode()

    assert "new instance" not in before
    assert "1 new instance<" in after


@pytest.mark.parametrize("role", [Membership.Role.READ, Membership.Role.WRITE])
def test_only_admins_see_what_is_private(org, machine, role):
    instance = make_instance(
        machine, seq=2, state=state("placed"), context='{"secret":"s3cret","public":{"n":"open"}}'
    )
    make_transition(instance, 1, kind=0, event='{"type":"xstate.init"}', state=state("draft"))
    make_transition(
        instance, 2, event='{"type":"place","card":"s3cret"}', state=state("placed"),
        context=instance.context, auth_context='{"sub":"s3cret"}',
    )  # fmt: skip
    member = signed_in(org, role)

    pages = [page_of(member, instance, tab) for tab in ("timeline", "context", "raw")]
    drawer = member.get(url_of(instance, "instance-send")).content.decode()

    assert all("s3cret" not in page for page in [*pages, drawer])
    assert "open" in pages[1]
    assert "You see what clients see" in pages[1]


def page_of(client, instance, tab):
    return client.get(url_of(instance), {"tab": tab}).content.decode()


# --- Upgrades -----------------------------------------------------------------------------------


@pytest.fixture
def second(machine):
    """The current version, to which a migration leads; instances are on the first."""
    second = make_version(machine, "v2")
    make_migration(machine.current_version, second)
    machine.current_version = second
    machine.save(update_fields=["current_version"])
    return second


def first_of(machine):
    return machine.versions.get(client_info="v1")


def test_page_says_that_a_newer_version_is_there(admin, machine, second):
    instance = make_instance(machine, version=first_of(machine))

    page = text_of(admin.get(url_of(instance)).content.decode())

    assert "v1 &nbsp;→&nbsp; v2 &nbsp;available" in page
    assert "Upgrade…" in page


def test_page_says_that_no_migration_leads_to_the_current_version(admin, machine, second):
    machine.migrations.all().delete()
    instance = make_instance(machine, version=first_of(machine))

    page = admin.get(url_of(instance)).content.decode()

    assert "No migration leads from v1 to v2" in page
    assert "available" not in text_of(page)


def test_page_of_the_current_version_offers_no_upgrade(admin, machine, second):
    page = admin.get(url_of(make_instance(machine))).content.decode()

    assert 'data-open="upgrade"' not in page


def test_upgrade_offers_versions_and_says_why_not_others(admin, machine, second):
    lonely = make_version(machine, "v3")
    instance = make_instance(machine, version=first_of(machine))

    page = admin.get(url_of(instance, "instance-upgrade")).content.decode()

    assert f'value="{second.public_id}" checked' in page
    assert re.search(f'value="{lonely.public_id}" *disabled', page)
    assert "No migration leads from v1 to v3" in page


def test_upgrade_is_noted_and_taken_back(admin, machine, second, fake_door):
    instance = make_instance(machine, version=first_of(machine))
    form = {"version": second.public_id, "do": "upgrade"}

    r = admin.post(url_of(instance, "instance-upgrade"), form)
    instance.refresh_from_db()
    pending = text_of(admin.get(url_of(instance)).content.decode())
    noted = instance.desired_version
    admin.post(url_of(instance, "instance-upgrade"), {"do": "cancel"})
    instance.refresh_from_db()

    assert r["location"] == url_of(instance)
    assert noted == second
    assert "upgrades to&nbsp; v2 &nbsp;before its next event" in pending
    assert instance.desired_version is None
    assert [name for name, _ in fake_door.calls] == ["instance_outdated"] * 2


def test_upgrade_by_htmx_loads_the_page_anew(admin, machine, second, fake_door):
    instance = make_instance(machine, version=first_of(machine))
    form = {"version": second.public_id, "do": "upgrade"}
    r = admin.post(url_of(instance, "instance-upgrade"), form, headers={"HX-Request": "true"})

    assert r["HX-Redirect"] == url_of(instance)


@pytest.mark.parametrize("do", ["try", "upgrade"])
def test_upgrade_without_a_way_is_refused_in_the_dialog(admin, machine, second, fake_door, do):
    lonely = make_version(machine, "v3")
    instance = make_instance(machine, version=first_of(machine))
    form = {"version": lonely.public_id, "do": do}

    r = admin.post(url_of(instance, "instance-upgrade"), form, headers={"HX-Request": "true"})

    instance.refresh_from_db()
    assert r.status_code == 200
    assert re.search("No migrations? lead", r.content.decode())
    assert instance.desired_version is None


def test_dry_run_of_what_is_done_or_not_settled_says_so(admin, machine, second, monkeypatch):
    def nothing(coroutine):
        coroutine.close()
        return []

    monkeypatch.setattr(door, "run", nothing)
    old = first_of(machine)
    done = make_instance(machine, "done", version=old, state=state("paid")[:-6] + "true}")
    waiting = make_instance(machine, "busy", version=old, children='[{"id":"x","src":"charge"}]')
    form = {"version": second.public_id, "do": "try"}

    answers = [
        admin.post(url_of(one, "instance-upgrade"), form).content.decode()
        for one in (done, waiting)
    ]

    assert "It has reached its final state" in answers[0]
    assert "It waits for charge" in answers[1]


def test_reader_sees_the_upgrade_disabled_and_may_not(org, machine, second, fake_door):
    reader = signed_in(org, Membership.Role.READ)
    instance = make_instance(machine, version=first_of(machine))
    form = {"version": second.public_id, "do": "upgrade"}

    page = reader.get(url_of(instance)).content.decode()

    assert re.search(
        'aria-disabled="true" title="This needs the role write[^>]*>.{0,120}Upgrade…', page
    )
    assert reader.get(url_of(instance, "instance-upgrade")).status_code == 403
    assert reader.post(url_of(instance, "instance-upgrade"), form).status_code == 403
    assert Instance.objects.get().desired_version is None


def test_list_shows_which_upgrade_is_to_come(admin, machine, second):
    make_instance(machine, version=first_of(machine), desired_version=second)

    assert "v1 → v2 before its next event" in text_of(admin.get(list_url(machine)).content.decode())


def make_upgraded_life(machine, second):
    """Created on the first version, upgraded, and moved on the second."""
    old = first_of(machine).pk
    instance = make_instance(machine, seq=3, state=state("paid"), version=second)
    make_transition(instance, 1, kind=0, state=state("draft"), version_id=old)
    make_transition(
        instance, 2, kind=6, event='{"type":"statebacked.upgrade"}', state=state("placed"),
        effects='[{"t":"rename","id":"a","to":"b","event":{"type":"later"}}]',
    )  # fmt: skip
    make_transition(instance, 3, event='{"type":"pay"}', state=state("paid"))
    return instance


@pytest.mark.parametrize("query", ["", "?source=upgrade"])
def test_timeline_tells_of_an_upgrade(admin, machine, second, query):
    instance = make_upgraded_life(machine, second)

    page = text_of(admin.get(url_of(instance) + query).content.decode())

    assert "upgraded&nbsp; v1 → v2 draft → placed kept later" in page


def test_time_travel_across_an_upgrade_shows_the_version_of_then(admin, machine, second):
    instance = make_upgraded_life(machine, second)
    versions = {}
    for seq in (1, 2, 3):
        page = admin.get(url_of(instance, "instance-moment"), {"at": seq}).content.decode()
        versions[seq] = lights(page)

    assert [versions[seq]["version"] for seq in (1, 2, 3)] == [
        first_of(machine).pk, second.pk, second.pk,
    ]  # fmt: skip
    assert first_of(machine).public_id in versions[1]["picture"]
    assert second.public_id in versions[2]["picture"]


# --- All instances of a version -----------------------------------------------------------------


def upgrade_url(version, part=""):
    machine = version.machine
    names = [machine.org.public_id, machine.slug, version.public_id]
    return reverse("upgrade-page", args=names) + part


def test_upgrading_a_version_is_shown_with_its_count_and_filter(admin, machine, second):
    old = first_of(machine)
    make_instance(machine, "a", version=old, desired_version=second)
    make_instance(machine, "b", version=old, status=Instance.Status.PAUSED)
    make_instance(machine, "c", version=old, state=state("paid")[:-6] + "true}")
    make_instance(machine, "d")

    page = text_of(admin.get(upgrade_url(old)).content.decode())

    assert "2 instances of v1" in page
    assert "1 in a final state keeps this version" in page
    assert "Upgrade 2 instances" in page
    assert "1 of them is to upgrade already, before its next event" in page


def test_all_instances_of_a_version_are_upgraded(admin, machine, second, fake_door):
    old = first_of(machine)
    moved = [make_instance(machine, slug, version=old) for slug in ("a", "b")]
    stays = make_instance(machine, "c")

    page = admin.post(upgrade_url(old), {"to": second.public_id, "do": "start"}).content.decode()

    assert "They upgrade before their next event" in page
    assert "2 instances of v1 will have v2" in text_of(page).replace(" 2 ", " 2 ")
    noted = Instance.objects.filter(desired_version=second)
    assert {one.pk for one in noted} == {one.pk for one in moved}
    assert stays not in noted


def test_upgrading_goes_on_part_by_part_and_can_be_stopped(
    admin, machine, second, fake_door, monkeypatch
):
    monkeypatch.setattr(upgrading_views, "LOOKED_AT", 2)
    old = first_of(machine)
    for slug in "abcd":
        make_instance(machine, slug, version=old)
    htmx = {"HX-Request": "true"}
    form = {"to": second.public_id, "do": "start"}

    first = admin.post(upgrade_url(old), form, headers=htmx).content.decode()
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\d+)"', first))
    stopped = admin.post(upgrade_url(old), {**form, **fields, "do": "stop"}, headers=htmx)
    noted = Instance.objects.filter(desired_version=second).count()
    last = first
    for _ in range(2):
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\d+)"', last))
        last = admin.post(upgrade_url(old), {**form, **fields, "do": "go"}, headers=htmx)
        last = last.content.decode()

    assert 'hx-trigger="load, every 30s"' in first
    assert 'aria-label="50 % done"' in first
    assert noted == 2
    assert "The rest keep v1" in stopped.content.decode()
    assert "All asked" in last
    assert Instance.objects.filter(desired_version=second).count() == 4


def test_upgrading_without_a_way_leads_to_a_draft(admin, machine, second, fake_door):
    machine.migrations.all().delete()
    old = first_of(machine)
    instance = make_instance(machine, version=old)

    page = admin.get(upgrade_url(old)).content.decode()
    r = admin.post(upgrade_url(old), {"to": second.public_id, "do": "start"})

    assert "No migration leads there yet" in page
    assert f"new-migration?from={old.public_id}&amp;to={second.public_id}" in page
    assert r.status_code == 400
    instance.refresh_from_db()
    assert instance.desired_version is None


def test_upgrading_the_current_version_leads_nowhere(admin, machine, second):
    assert "This is the current version" in admin.get(upgrade_url(second)).content.decode()
    form = {"to": second.public_id, "do": "start"}
    assert admin.post(upgrade_url(second), form).status_code == 400


@pytest.mark.parametrize("role", ["read", "write"])
def test_upgrading_a_version_is_for_admins(org, machine, second, fake_door, role):
    old = first_of(machine)
    make_instance(machine, version=old)
    person = signed_in(org, role)

    page = person.get(upgrade_url(old)).content.decode()

    assert "This needs the role admin" in page
    assert "/sample" not in page
    assert person.get(upgrade_url(old, f"/sample?to={second.public_id}")).status_code == 403
    assert person.post(upgrade_url(old), {"to": second.public_id}).status_code == 403
    assert not Instance.objects.filter(desired_version=second).exists()


def test_sample_is_spread_over_states(machine, second, monkeypatch):
    monkeypatch.setattr(upgrade_sample, "SAMPLE", 4)
    old = first_of(machine)
    for number in range(9):
        make_instance(machine, f"many-{number}", version=old, state=state("draft"))
    make_instance(machine, "rare", version=old, state=state("placed"))
    make_instance(machine, "done", version=old, state=state("paid")[:-6] + "true}")

    chosen = upgrade_sample.sample_of(state_counts.whereabouts(machine), old)

    assert [one.slug for one in chosen] == ["many-8", "rare", "many-7", "many-6"]


def test_sample_of_many_instances_is_found_by_their_places(machine, second, monkeypatch):
    for module in (upgrade_sample, state_counts):
        monkeypatch.setattr(module, "COUNTED_MAX", 1)
    old = first_of(machine)
    made = [make_instance(machine, slug, version=old) for slug in "abc"]
    places.repair([one.pk for one in made])

    chosen = upgrade_sample.sample_of(state_counts.whereabouts(machine), old)

    assert [one.slug for one in chosen] == ["c", "b", "a"]
