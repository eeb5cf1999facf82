"""What holds for every page of an org, and the frame around them."""

import re

import pytest
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from authz.models import Membership
from instances.models import Instance
from machines.models import MachineVersion
from statebacked_site import frame
from statebacked_site.pages import home
from tests.factories import (
    make_instance,
    make_key,
    make_log_entry,
    make_machine,
    make_member,
    make_org,
    make_user,
)
from tests.pages import HOSTILE, assert_strict, browser_of, text_of, url

pytestmark = pytest.mark.django_db


def patterns_of(resolver: URLResolver) -> list[URLPattern]:
    found: list[URLPattern] = []
    for pattern in resolver.url_patterns:
        found += patterns_of(pattern) if isinstance(pattern, URLResolver) else [pattern]
    return found


OF_ORG = [
    str(pattern.pattern)
    for pattern in patterns_of(get_resolver())
    if str(pattern.pattern).startswith("o/<str:org>")
]


def path_of(pattern: str, org_id: str) -> str:
    path = pattern.replace("<str:org>", org_id).replace("<str:machine>", "order")
    return "/" + re.sub(r"<int:\w+>", "1", re.sub(r"<str:\w+>", "some-name", path))


@pytest.fixture
def org():
    return make_org(f"Acme {HOSTILE}")


@pytest.fixture
def machine(org):
    return make_machine(org, with_version=True)


# --- Access -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", OF_ORG)
def test_page_of_an_org_asks_to_sign_in(client, org, pattern):
    path = path_of(pattern, org.public_id)

    for answer in (client.get(path), client.post(path)):
        assert answer.status_code in (302, 405)
        if answer.status_code == 302:
            assert answer["location"].startswith("/sign-in?next=")


@pytest.mark.parametrize("pattern", OF_ORG)
def test_page_of_an_org_is_not_there_for_others(org, machine, pattern):
    stranger = browser_of(make_org("Other"))
    path = path_of(pattern, org.public_id)

    for answer in (stranger.get(path), stranger.post(path)):
        assert answer.status_code in (404, 405)
        assert "Acme" not in answer.content.decode()


@pytest.mark.parametrize("wrong", ["nonsense", "org_AAAAAAAAAAAAAAAAAAAAAA", "%00", "%E2%80%AE"])
def test_org_that_is_none_is_not_found(org, wrong):
    assert_strict(browser_of(org).get(f"/o/{wrong}/machines"), 404)


def test_part_of_a_page_sends_the_whole_page_to_sign_in(client, org):
    r = client.get(
        url(org, "/timers"),
        headers={"HX-Request": "true", "HX-Current-URL": f"http://testserver{url(org)}/timers?q=a"},
    )

    assert r.status_code == 204
    assert r["HX-Redirect"].endswith("timers%3Fq%3Da")
    assert "testserver" not in r["HX-Redirect"]


# --- Every page ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Membership.Role.values)
@pytest.mark.parametrize(
    "path",
    [
        "",
        "/machines",
        "/machines?q=nothing-like-it",
        "/new-machine",
        "/machines/order",
        "/machines/order/deploy",
        "/machines/order/versions",
        "/machines/order/migrations",
        "/machines/order/new-migration",
        "/machines/order/settings",
        "/machines/order/schedules",
        "/machines/order/instances",
        "/timers",
        "/attention",
        "/logs",
        "/keys",
        "/keys?new=1",
    ],
)
def test_page_keeps_the_policy_whatever_things_are_called(org, machine, role, path):
    MachineVersion.objects.update(client_info=HOSTILE)
    make_key(org)
    stored = '{"state":{"<b>x</b>":"\\"><script>"},"tags":[],"done":false}'
    make_log_entry(make_instance(machine, state=stored), HOSTILE, 1_700_000_000_000)

    page = assert_strict(browser_of(org, role).get(url(org, path)))

    assert "Acme &quot;&gt;&lt;script&gt;" in page
    assert "{{ 7|add:7 }}" in page
    assert "\u202e14" not in page


def test_navigation_marks_where_one_is(org):
    page = browser_of(org).get(url(org, "/timers")).content.decode()

    current = re.findall(r'<a href="([^"]+)" aria-current="page"', page)
    assert set(current) == {url(org, "/timers")}


def test_reader_sees_that_changing_is_not_for_them(org, machine):
    page = browser_of(org, Membership.Role.READ).get(url(org, "/machines/order/versions"))

    text = page.content.decode()
    assert "Read only" in text
    assert "This needs the role write, and yours is read" in text
    assert url(org, "/machines/order/deploy") + '" data-shortcut' not in text


def test_switcher_lists_only_own_orgs(org):
    user = make_member(org)
    second = make_org("Second")
    Membership.objects.create(org=second, user=user, role=Membership.Role.READ)
    make_org("Stranger")
    client = Client()
    client.force_login(user)

    page = client.get(url(org, "/timers")).content.decode()

    assert url(second) in page
    assert "Stranger" not in page


def test_theme_is_in_the_page_from_the_start(org):
    client = browser_of(org)

    r = client.post("/theme", {"theme": "dark", "next": url(org, "/timers")})
    dark = client.get(url(org)).content.decode()
    client.post("/theme", {"theme": "system"})
    system = client.get(url(org)).content.decode()

    assert r["location"] == url(org, "/timers")
    assert '<html lang="en" data-theme="dark">' in dark
    assert '<html lang="en">' in system


def test_theme_cookie_is_never_written_into_the_page(org):
    client = browser_of(org)
    client.cookies["theme"] = '"><script>'

    assert '<html lang="en">' in assert_strict(client.get(url(org)))


def test_failure_of_a_page_is_inside_the_frame(org):
    page = assert_strict(browser_of(org).get(url(org, "/machines/none")), 404)

    assert "There is no such machine" in text_of(page)
    assert url(org, "/timers") in page


def test_what_a_role_may_not_do_names_the_role_and_who_can_change_it(org, machine):
    reader = browser_of(org, Membership.Role.READ)

    page = reader.post(url(org, "/keys"), {"name": "a", "use": "ci"})
    part = reader.post(
        url(org, "/keys"), {"name": "a", "use": "ci"}, headers={"HX-Request": "true"}
    )

    text = text_of(assert_strict(page, 403))
    assert "This is not for your role" in text
    assert "This needs the role admin, and yours is read." in text
    assert "Try again" not in text
    assert "This needs the role admin" in part["HX-Trigger"]


def test_failure_of_a_part_is_a_toast(org):
    r = browser_of(org).get(url(org, "/timers?after=x"), headers={"HX-Request": "true"})

    assert r.status_code == 400
    assert '"toast"' in r["HX-Trigger"]
    assert r.content == b""


def test_a_bug_in_a_page_is_a_page_without_its_details(org, monkeypatch):
    def fail(*_args):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(home, "overview", fail)
    monkeypatch.setattr(home, "first_steps", fail)
    client = browser_of(org)
    client.raise_request_exception = False

    r = client.get("/")

    assert "secret detail" not in assert_strict(r, 500)
    assert r["x-request-id"] in r.content.decode()


def test_form_without_its_token_is_explained():
    r = Client(enforce_csrf_checks=True).post("/sign-out")

    assert "Try again" in assert_strict(r, 403)


def test_other_paths_are_a_page(client):
    r = client.get("/nothing")

    assert "Not Found" in assert_strict(r, 404)
    assert r["x-request-id"]


@pytest.mark.parametrize(
    "name", ["tokens.css", "base.css", "frame.css", "pages.css", "logo.svg", "js/frame.js"]
)
def test_files_of_the_pages_are_there(name):
    assert finders.find(f"site/{name}")


# --- Home ---------------------------------------------------------------------------------------


def test_signed_out_home_leads_to_sign_in(client):
    assert client.get("/")["location"] == "/sign-in"


def test_person_without_an_org_is_told(client):
    client.force_login(make_user())

    assert "You are in no org" in assert_strict(client.get("/"))


def test_home_is_of_the_org_that_was_looked_at_last(org):
    user = make_member(org)
    second = make_org("Second")
    Membership.objects.create(org=second, user=user, role=Membership.Role.READ)
    client = Client()
    client.force_login(user)

    first = client.get("/").content.decode()
    client.get(url(second, "/timers"))
    last = client.get("/").content.decode()

    assert f'data-home="{url(org)}"' in first
    assert f'data-home="{url(second)}"' in last


def test_first_steps_tick_themselves(org):
    client = browser_of(org)

    empty = text_of(client.get(url(org)).content.decode())
    assert "0 of 3" in empty
    assert "manage.py deploy" in empty
    unchanged = client.get(url(org, "?done=0"), headers={"HX-Request": "true"})
    assert unchanged.status_code == 204

    machine = make_machine(org, "mine", with_version=True)
    part = client.get(url(org, "?done=0"), headers={"HX-Request": "true"})
    assert "1 of 3" in text_of(part.content.decode())
    assert "machines/mine" in part.content.decode()

    make_instance(machine)
    done = client.get(url(org, "?done=1"), headers={"HX-Request": "true"})
    assert done["HX-Refresh"] == "true"


def test_home_shows_what_runs(org, machine):
    for number in range(3):
        make_instance(machine, f"i-{number}")
    make_instance(machine, "gone~9", status=Instance.Status.DELETED)
    make_instance(make_machine(make_org(), "not-theirs", with_version=True))

    text = text_of(assert_strict(browser_of(org).get("/")))

    assert "Instances 3" in text
    assert "idle 3" in text
    assert "not-theirs" not in text
    assert org.public_id in text


def test_number_of_queries_does_not_grow(org, django_assert_max_num_queries):
    for number in range(10):
        make_instance(make_machine(org, f"m-{number}", with_version=True))
    client = browser_of(org)
    client.get(url(org))

    with django_assert_max_num_queries(22):
        client.get(url(org))
    with django_assert_max_num_queries(12):
        client.get(url(org, "/machines"))


# --- The palette --------------------------------------------------------------------------------


def test_palette_finds_machines_and_instances_by_the_start_of_their_names(org, machine):
    make_instance(machine, "order-17")
    make_instance(machine, "another")
    make_machine(org, "orchard")

    page = browser_of(org).get(url(org, "/palette?q=or")).content.decode()

    assert [re.sub(r".*/", "", link) for link in re.findall(r'href="(/[^"]+)"', page)] == [
        "orchard",
        "order",
        "order-17",
    ]


def test_palette_finds_a_version_by_its_id(org, machine):
    version = machine.current_version.public_id

    found = browser_of(org).get(url(org, f"/palette?q={version}")).content.decode()
    by_others = browser_of(make_org()).get(url(org, f"/palette?q={version}"))

    assert url(org, f"/machines/order/versions/{version}") in found
    assert by_others.status_code == 404


def test_palette_tells_nothing_of_other_orgs(org):
    make_instance(make_machine(make_org(), with_version=True), "order-17")

    assert browser_of(org).get(url(org, "/palette?q=or")).content.decode().strip() == ""


@pytest.mark.parametrize("text", ["%00", "<script>", "a" * 500, "\u202e", "100%25", "_"])
def test_palette_takes_any_text(org, machine, text):
    assert browser_of(org).get(url(org, f"/palette?q={text}")).status_code == 200


def test_section_keys_are_all_different():
    keys = [section.key for section in frame.SECTIONS]

    assert len(set(keys)) == len(keys)
