"""Events that led to no transition, in the timeline of an instance's page."""

import re

import pytest

from authz.models import Membership
from instances.models import Instance, UnheededEvent
from instances.pages import definitions, unheeded
from tests.factories import make_instance, make_machine, make_org, make_transition
from tests.instances.graphs import order_definition
from tests.instances.test_views import seqs, signed_in, state, url_of

pytestmark = pytest.mark.django_db

IGNORED, DENIED, PAUSED = UnheededEvent.Outcome
T0 = 1_700_000_000_000
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def machine():
    machine = make_machine(make_org(), with_version=True)
    assert machine.current_version_id is not None
    definitions.keep(machine.current_version_id, order_definition())
    return machine


@pytest.fixture
def admin(machine):
    return signed_in(machine.org, Membership.Role.ADMIN)


@pytest.fixture
def instance(machine):
    """Two transitions: draft, placed."""
    instance = make_instance(machine, seq=2, state=state("placed"))
    make_transition(instance, 1, kind=0, event='{"type":"xstate.init"}', state=state("draft"))
    make_transition(instance, 2, event='{"type":"place"}', state=state("placed"))
    return instance


def note(instance, seq, event_type, outcome=IGNORED, **fields):
    values = {
        "kind": 1,
        "event": f'{{"type":"{event_type}"}}',
        "auth_context": '{"sub":"u_17"}',
        "more": 0,
        "created_at": T0 + seq,
    }
    return UnheededEvent.objects.create(
        instance_id=instance.pk, seq=seq, outcome=outcome, **values | fields
    )


def page_of(client, instance, **query):
    return client.get(url_of(instance), query).content.decode()


def timeline_of(page):
    """What stands in the timeline, from the top: `1` for transition 1, or the word of a note."""
    found = re.findall(r'<li data-seq="(\d+)"|<span class="outcome">(\w+)<', page)
    return [seq or word for seq, word in found]


def why(client, instance, row):
    answer = client.get(url_of(instance, "instance-reason", row.pk))
    assert answer.status_code == 200
    text = re.sub(r"<(/?)code>", "`", answer.content.decode())
    return re.sub(r"<[^>]+>", "", text).strip()


def test_notes_stand_above_the_transition_after_which_they_came(admin, instance):
    note(instance, 1, "pay")
    note(instance, 1, "place", DENIED)
    note(instance, 2, "place", PAUSED)

    shown = timeline_of(page_of(admin, instance))

    assert shown == ["paused", "2", "denied", "ignored", "1"]
    moment = admin.get(url_of(instance, "instance-moment"), {"blocks": "newest"})
    assert timeline_of(moment.content.decode()) == shown


def test_reason_is_told_against_the_state_of_that_time(admin, instance):
    ignored, guarded = note(instance, 1, "pay"), note(instance, 1, "place")
    forbidden, unknown = note(instance, 1, "ping"), note(instance, 2, "nonsense")
    cut = note(instance, 1, "x", event='{"type":"pay","text":"' + "x" * 1_900)

    assert why(admin, instance, ignored) == (
        "`pay` is not handled in `draft`; it is handled in `placed`."
    )
    assert why(admin, instance, guarded) == "Guard `hasStock` was false."
    assert why(admin, instance, forbidden) == "`draft` says that `ping` is to be ignored there."
    assert why(admin, instance, unknown) == (
        "`nonsense` is not handled by any state of this version."
    )
    assert why(admin, instance, cut) == why(admin, instance, ignored)


def test_refusals_say_who_was_denied_and_since_when_it_was_paused(admin, instance):
    denied = note(instance, 1, "place", DENIED)
    paused = note(instance, 2, "pay", PAUSED, created_at=T0 + 60_000)
    earlier = note(instance, 2, "pay", PAUSED, created_at=T0 - 60_000)
    Instance.objects.update(status=Instance.Status.PAUSED, paused_at=T0)

    assert why(admin, instance, denied) == "Denied by `allowWrite` for `sub=u_17`."
    assert why(admin, instance, paused).startswith(
        "`order-1` is paused since 14 Nov 2023, 22:13:20"
    )
    assert why(admin, instance, earlier).startswith("`order-1` was paused then")


@pytest.mark.parametrize("role", [Membership.Role.READ, Membership.Role.WRITE])
def test_only_admins_see_who_sent_what_did_nothing(instance, admin, role):
    denied = note(instance, 2, "pay", DENIED)
    member = signed_in(instance.org, role)

    assert "u_17" in page_of(admin, instance)
    assert "denied" in page_of(member, instance)
    assert "u_17" not in page_of(member, instance)
    assert why(member, instance, denied) == "Denied by `allowWrite`."


def test_many_notes_of_one_transition_are_counted(admin, instance):
    for number in range(unheeded.SHOWN + 5):
        note(instance, 2, f"e{number}", more=1)
    note(instance, 1, "pay")

    page = page_of(admin, instance)

    assert timeline_of(page) == ["ignored"] * unheeded.SHOWN + ["2", "ignored", "1"]
    assert "10 more events led to nothing here" in page
    assert "e24" in page
    assert ">e4<" not in page


def test_notes_beyond_one_query_are_found(monkeypatch, machine):
    monkeypatch.setattr(unheeded, "FETCHED", 25)
    instance = make_instance(machine)
    for seq, count in ((1, 3), (2, 30), (3, 1), (4, 7)):
        for _ in range(count):
            note(instance, seq, "pay")

    found = unheeded.notes_by_seq(unheeded.notes_of(instance.pk), 10)

    counts = {seq: len(notes.shown) + notes.more for seq, notes in found.items()}
    assert counts == {4: 7, 3: 1, 2: 30, 1: 3}


def test_filters_let_notes_through(admin, instance):
    note(instance, 1, "pay")
    note(instance, 1, "place", DENIED)
    note(instance, 2, "remind", kind=2)

    def found(**query):
        return timeline_of(page_of(admin, instance, **query))

    assert found(source="ignored") == ["ignored", "denied", "ignored"]
    assert found(source="errors") == ["denied"]
    assert found(source="timer") == ["ignored"]
    assert found(event="place") == ["2", "denied"]
    assert found(event="pay", source="ignored") == ["ignored"]
    assert "No event was ignored" in page_of(admin, instance, event="x", source="ignored")


def test_ignored_events_of_long_histories_come_in_pages(admin, machine, monkeypatch):
    monkeypatch.setattr("instances.pages.timeline.ROWS", 4)
    instance = make_instance(machine, seq=10)
    for seq in range(1, 11):
        make_transition(instance, seq)
        note(instance, seq, f"n{seq}")

    seen, before = [], 11
    while before:
        query = {"source": "ignored", "before": before}
        page = admin.get(url_of(instance, "instance-rows"), query).content.decode()
        seen += re.findall(r">n(\d+)<", page)
        more = re.search(r'data-before="(\d+)"', page)
        before = int(more[1]) if more else 0

    assert seen == [str(seq) for seq in range(10, 0, -1)]
    assert seqs(admin.get(url_of(instance, "instance-rows"), {"source": "ignored"})) == []


def test_hostile_events_are_inert_and_others_notes_are_not_there(admin, instance, machine):
    row = note(instance, 2, HOSTILE)
    other = make_instance(machine, "order-2")
    strangers = note(other, 1, "pay")

    assert HOSTILE not in page_of(admin, instance)
    assert HOSTILE not in admin.get(url_of(instance, "instance-reason", row.pk)).content.decode()
    for pk in (strangers.pk, 999_999):
        assert admin.get(url_of(instance, "instance-reason", pk)).status_code == 404
    stranger = signed_in(make_org("Other"), Membership.Role.ADMIN)
    assert stranger.get(url_of(instance, "instance-reason", row.pk)).status_code == 404
