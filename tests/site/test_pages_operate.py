"""Timers, attention and logs."""

import re
import time

import pytest

from instances import deliveries
from instances.models import DeadLetter, Delivery, LogEntry
from statebacked_site.errors import InvalidParameter
from statebacked_site.log_lines import marked
from statebacked_site.pages import logs, timers
from tests.factories import make_instance, make_log_entry, make_machine, make_org
from tests.pages import HOSTILE, assert_strict, browser_of, text_of, url

pytestmark = pytest.mark.django_db

MINUTE_MS = 60_000
AFTER = '{"type":"xstate.after.86400000.order.idle"}'


@pytest.fixture
def org():
    return make_org()


@pytest.fixture
def machine(org):
    return make_machine(org, with_version=True)


@pytest.fixture
def browser(org):
    return browser_of(org)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def make_delivery(machine, slug="order-1", due_in_ms=MINUTE_MS, **fields):
    values = {"kind": Delivery.Kind.TIMER, "event": AFTER, "created_at": now_ms()}
    return Delivery.objects.create(
        org_id=machine.org_id,
        target_machine_id=machine.pk,
        target_slug=slug,
        due_at=now_ms() + due_in_ms,
        **(values | fields),
    )


def make_letter(machine, key=77, **fields):
    values = {"kind": Delivery.Kind.TIMER, "event": AFTER, "attempts": 5, "claims": 6}
    return DeadLetter.objects.create(
        id=key,
        org_id=machine.org_id,
        target_machine_id=machine.pk,
        target_slug="order-1",
        source_id=1,
        source_seq=2,
        source_n=0,
        send_id="s",
        due_at=now_ms() - MINUTE_MS,
        created_at=now_ms(),
        died_at=now_ms(),
        **({"reason": "the instance is paused"} | values | fields),
    )


def act(browser, org, path, **given):
    return browser.post(url(org, path), given)


# --- Timers -------------------------------------------------------------------------------------


def test_timers_are_listed_by_when_they_are_due(browser, org, machine):
    make_instance(machine, "order-1")
    make_delivery(machine, "order-1", 2 * MINUTE_MS)
    make_delivery(machine, "order-0", -10 * MINUTE_MS)
    make_delivery(make_machine(make_org(), "theirs"), "not-ours")

    page = assert_strict(browser.get(url(org, "/timers")))

    text = text_of(page)
    assert text.index("order-0") < text.index("order-1")
    assert "after 1 d" in text
    assert "idle" in text
    assert "not-ours" not in text
    assert "10 min ago overdue" in text


def test_timers_say_which_kind_of_nothing(browser, org, machine):
    assert "Nothing is pending" in text_of(assert_strict(browser.get(url(org, "/timers"))))

    make_delivery(machine)

    filtered = text_of(assert_strict(browser.get(url(org, "/timers?q=zzz"))))
    assert "No pending timer matches" in filtered
    assert "Nothing is pending" not in filtered


def test_timers_are_filtered_by_machine_and_instance(browser, org, machine):
    make_delivery(machine, "order-1")
    make_delivery(make_machine(org, "chat"), "room-1")

    by_machine = text_of(browser.get(url(org, "/timers?machine=chat")).content.decode())
    by_name = text_of(browser.get(url(org, "/timers?q=order")).content.decode())

    assert "room-1" in by_machine
    assert "order-1" not in by_machine
    assert "order-1" in by_name
    assert "room-1" not in by_name


def test_pages_of_timers_hold_each_once(browser, org, machine, monkeypatch):
    monkeypatch.setattr(timers, "ROWS", 2)
    for number in range(5):
        make_delivery(machine, f"i-{number}", MINUTE_MS * (number // 2))  # some at the same moment

    seen = []
    path = url(org, "/timers")
    while path:
        page = browser.get(path).content.decode()
        seen += re.findall(r">(i-\d)</span>", page)
        link = re.search(r'href="(\?[^"]*after=[^"]+)"', page)
        path = url(org, "/timers") + link[1].replace("&amp;", "&") if link else ""

    assert seen == [f"i-{number}" for number in range(5)]


def test_forecast_counts_hours(org, machine):
    hour_ms = now_ms() // timers.HOUR_MS * timers.HOUR_MS
    for due_ms in (hour_ms - 99 * MINUTE_MS, hour_ms + 1, hour_ms + timers.HOUR_MS):
        make_delivery(machine, due_in_ms=due_ms - now_ms())
    make_delivery(machine, due_in_ms=hour_ms + 24 * timers.HOUR_MS - now_ms())

    bars = timers.forecast(org, hour_ms + 5)

    assert [bar.number for bar in bars] == [2, 1] + [0] * 22


def test_firing_and_cancelling(browser, org, machine):
    fired, cancelled = make_delivery(machine), make_delivery(machine, "order-2")

    act(browser, org, f"/timers/{fired.pk}", action="fire")
    act(browser, org, f"/timers/{cancelled.pk}", action="cancel")

    assert Delivery.objects.get().pk == fired.pk
    assert Delivery.objects.get().due_at <= time.time_ns() // 1_000_000


def test_timer_that_is_gone_is_said_to_be(browser, org, machine):
    r = act(browser, org, "/timers/12345", action="cancel")

    assert "delivered or cancelled meanwhile" in text_of(assert_strict(r, 404))


def test_timer_of_another_org_is_not_touched(browser, org):
    theirs = make_delivery(make_machine(make_org(), "theirs"))

    for action in ("fire", "cancel"):
        assert act(browser, org, f"/timers/{theirs.pk}", action=action).status_code == 404
    assert Delivery.objects.get().due_at == theirs.due_at


@pytest.mark.parametrize("role", ["read", "write"])
def test_only_admins_act_on_deliveries(org, machine, role):
    timer, letter = make_delivery(machine), make_letter(machine)
    browser = browser_of(org, role)

    for path, action in (
        (f"/timers/{timer.pk}", "fire"),
        (f"/timers/{timer.pk}", "cancel"),
        (f"/attention/{letter.pk}", "redrive"),
        (f"/attention/{letter.pk}", "edit"),
        (f"/attention/{letter.pk}", "discard"),
    ):
        assert act(browser, org, path, action=action, event=AFTER).status_code == 403

    assert Delivery.objects.get().due_at == timer.due_at
    assert DeadLetter.objects.count() == 1
    assert "This needs the role admin" in browser.get(url(org, "/timers")).content.decode()


# --- Attention ----------------------------------------------------------------------------------


def test_attention_without_anything_says_so(browser, org):
    assert "Nothing waits for you" in text_of(assert_strict(browser.get(url(org, "/attention"))))


def test_attention_lists_dead_and_failing_deliveries_with_their_cause(browser, org, machine):
    make_letter(machine, reason=HOSTILE)
    make_delivery(machine, "flaky", attempts=2, last_error="guard threw")
    make_delivery(machine, "late", -5 * MINUTE_MS)
    make_delivery(machine, "fine")

    text = text_of(assert_strict(browser.get(url(org, "/attention?letter=77"))))

    assert "All 3" in text
    assert "2 tries so far, the last: guard threw" in text
    assert "late" in text
    assert "fine" not in text


@pytest.mark.parametrize("letter", ["", "x", "-1", "9" * 30, "78", "\u0663"])
def test_letter_that_is_none_shows_the_list(browser, org, machine, letter):
    make_letter(machine)

    assert_strict(browser.get(url(org, "/attention"), {"letter": letter}))


def test_redriving_makes_it_a_delivery_again(browser, org, machine):
    make_letter(machine)

    act(browser, org, "/attention/77", action="redrive")

    delivery = Delivery.objects.get()
    assert not DeadLetter.objects.exists()
    assert (delivery.pk, delivery.event, delivery.send_id) == (77, AFTER, "s")
    assert (delivery.attempts, delivery.claims, delivery.claim_until) == (0, 0, 0)
    assert delivery.due_at <= time.time_ns() // 1_000_000


def test_redriving_twice_delivers_once(browser, org, machine):
    make_letter(machine)

    act(browser, org, "/attention/77", action="redrive")
    again = act(browser, org, "/attention/77", action="redrive")

    assert again.status_code == 404
    assert Delivery.objects.count() == 1


def test_editing_an_event_before_it_is_sent_again(browser, org, machine):
    make_letter(machine)

    act(browser, org, "/attention/77", action="edit", event='{"type": "pay", "amount": 5}')

    assert Delivery.objects.get().event == '{"type":"pay","amount":5}'


@pytest.mark.parametrize("event", ["", "{", "5", "[]", "{}", '{"type":5}', '{"type":"\\ud800"}'])
def test_event_that_is_none_is_not_sent(browser, org, machine, event):
    make_letter(machine)

    r = act(browser, org, "/attention/77", action="edit", event=event)

    page = assert_strict(r, 422)
    assert 'aria-invalid="true"' in page
    assert DeadLetter.objects.count() == 1
    assert not Delivery.objects.exists()


def test_discarding(browser, org, machine):
    make_letter(machine)

    act(browser, org, "/attention/77", action="discard")

    assert not DeadLetter.objects.exists()
    assert not Delivery.objects.exists()


def test_letters_of_another_org_are_not_touched(browser, org):
    make_letter(make_machine(make_org(), "theirs"))

    for action in ("redrive", "edit", "discard"):
        r = act(browser, org, "/attention/77", action=action, event=AFTER)
        assert r.status_code == 404
    assert DeadLetter.objects.count() == 1
    assert "order-1" not in browser.get(url(org, "/attention?letter=77")).content.decode()


def test_dead_letters_are_counted_in_the_navigation(browser, org, machine):
    make_letter(machine)

    page = browser.get(url(org, "/timers")).content.decode()

    assert re.search(r'Attention</span><span class="n small">1</span>', page)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (AFTER, ("after 1 d", "order.idle")),
        ('{"type":"xstate.after(600000)#order.idle"}', ("after 10 min", "order.idle")),
        ('{"type":"xstate.after.untilReminder.order"}', ("after untilReminder", "order")),
        ('{"type":"pay"}', ("pay", "")),
        ('"pay"', ("pay", "")),
        ("{", ("unreadable", "")),
        ("[1]", ("unreadable", "")),
    ],
)
def test_event_in_words(event, words):
    assert deliveries.event_words(event)[:2] == words


def test_event_has_a_bound():
    with pytest.raises(InvalidParameter, match="larger"):
        deliveries.checked_event('{"type":"' + "x" * deliveries.EVENT_BYTES_MAX + '"}')


# --- Logs ---------------------------------------------------------------------------------------


@pytest.fixture
def instance(machine):
    return make_instance(machine)


def test_logs_are_newest_first_and_inert(browser, org, instance):
    make_log_entry(instance, "line one", now_ms())
    make_log_entry(instance, f"line two {HOSTILE}\x1b[31m", now_ms(), "error")
    make_log_entry(make_instance(make_machine(make_org(), with_version=True)), "theirs", now_ms())

    text = text_of(assert_strict(browser.get(url(org, "/logs"))))

    assert text.index("line two") < text.index("line one")
    assert "theirs" not in text


def test_rest_of_a_long_line_is_folded_unless_it_was_searched_for(browser, org, instance):
    make_log_entry(instance, "short", now_ms())
    assert "more characters" not in assert_strict(browser.get(url(org, "/logs")))

    make_log_entry(instance, "a" * 800 + "needle" + "b" * 100, now_ms())
    assert "106 more characters" in assert_strict(browser.get(url(org, "/logs")))
    found = assert_strict(browser.get(url(org, "/logs?q=needle")))

    assert "<details open>" in found
    assert "<mark>needle</mark>" in found


def test_logs_say_which_kind_of_nothing(browser, org, instance):
    assert "Nothing was logged yet" in text_of(browser.get(url(org, "/logs")).content.decode())

    make_log_entry(instance, "hello", now_ms())

    text = text_of(assert_strict(browser.get(url(org, "/logs?q=zzz"))))
    assert "No line matches" in text
    assert "Nothing was logged yet" not in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=WORLD", ["hello world"]),
        ("level=warn", ["beware", "it broke"]),
        ("level=error", ["it broke"]),
        ("instance=order", ["hello world", "beware", "it broke"]),
        ("instance=none", []),
        ("machine=order", ["hello world", "beware", "it broke"]),
        ("machine=chat", []),
        ("q=%25", []),
    ],
)
def test_searching_logs(browser, org, instance, query, found):
    make_log_entry(instance, "hello world", now_ms())
    make_log_entry(instance, "beware", now_ms(), "warn")
    make_log_entry(instance, "it broke", now_ms(), "error")

    text = text_of(browser.get(url(org, f"/logs?{query}")).content.decode())

    for message in ("hello world", "beware", "it broke"):
        assert (message in text) == (message in found)


def test_what_was_searched_for_is_marked():
    assert marked("a <B> b", "B") == [
        ("a <", False),
        ("B", True),
        ("> ", False),
        ("b", True),
    ]
    assert marked("İstanbul", "s") == [("İstanbul", False)]  # its lower case is longer
    assert marked("abc", "") == [("abc", False)]


def tail_of(page):
    """Where to ask for newer lines."""
    (tail,) = re.findall(r'hx-get="([^"]+newer=[^"]+)"', page)
    return tail.replace("&amp;", "&")


def test_following_logs_answers_only_what_is_new(browser, org, instance):
    make_log_entry(instance, "old", now_ms())
    page = browser.get(url(org, "/logs")).content.decode()
    tail = tail_of(page)

    assert browser.get(tail).status_code == 204
    make_log_entry(instance, "new", now_ms())
    part = browser.get(tail).content.decode()

    assert "new" in part
    assert "old" not in part
    assert browser.get(tail_of(part)).status_code == 204


def test_older_logs_are_reached_however_rare_a_match_is(browser, org, instance, monkeypatch):
    monkeypatch.setattr(logs, "SEARCHED_MAX", 3)
    make_log_entry(instance, "needle", now_ms())
    for number in range(7):
        make_log_entry(instance, f"hay {number}", now_ms())

    path, pages = url(org, "/logs?q=needle"), 0
    while path and "needle</mark>" not in (page := browser.get(path).content.decode()):
        link = re.search(r'href="(\?[^"]*before=[^"]+)"', page)
        path = url(org, "/logs") + link[1].replace("&amp;", "&") if link else ""
        pages += 1

    assert path
    assert pages == 2


@pytest.mark.parametrize("query", ["level=loud", "q=%00", "before=x", "before=" + "9" * 40])
def test_odd_filters_are_refused_or_ignored(browser, org, instance, query):
    make_log_entry(instance, "hello", now_ms())

    assert browser.get(url(org, f"/logs?{query}")).status_code in (200, 400)


def test_entry_of_a_deleted_machine_is_still_shown(browser, org, instance):
    make_log_entry(instance, "hello", now_ms())
    LogEntry.objects.update(machine_id=999_999)

    assert "deleted machine" in text_of(assert_strict(browser.get(url(org, "/logs"))))
