"""What holds for every page: policy, escaping, and nothing that the policy would forbid."""

import re
from datetime import UTC, datetime

import pytest
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import reverse

from authz import sign_in_links
from authz.models import Membership
from instances.models import Instance
from statebacked_site import pages
from tests.factories import (
    make_instance,
    make_machine,
    make_member,
    make_org,
    make_user,
    make_version,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def org():
    return make_org("Acme <script>alert(1)</script>")


@pytest.fixture
def signed_in(org):
    client = Client()
    client.force_login(make_member(org))
    return client


def assert_strict(r) -> str:
    """Check what a strict policy needs; returns the page."""
    page = r.content.decode()
    assert "default-src 'self'" in r["content-security-policy"]
    assert "script-src 'self';" in r["content-security-policy"]
    assert "<script" not in page
    assert "<style" not in page
    assert not re.search(r"\s(style|on\w+)=", page)
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert '<html lang="en">' in page
    assert re.search(r"<title>[^<]+ · State Backed</title>", page)
    return page


def test_signed_out_page_says_how_to_sign_in(client):
    page = assert_strict(client.get("/"))

    assert "manage.py sign_in_link" in page


def test_signed_out_page_tells_nothing_about_the_site(client, org, settings):
    make_machine(org, "secret-machine")

    page = client.get("/").content.decode()

    assert "secret-machine" not in page
    assert org.public_id not in page
    assert str(settings.DATA_DIR) not in page


def test_home_shows_the_org_and_its_machines(signed_in, org):
    machine = make_machine(org, with_version=True)
    for number in range(3):
        make_instance(machine, f"i-{number}")
    make_instance(machine, "gone~9", status=Instance.Status.DELETED)
    make_machine(org, "empty")
    make_machine(make_org(), "not-theirs")

    page = assert_strict(signed_in.get("/"))

    assert "Acme &lt;script&gt;" in page
    assert org.public_id in page
    assert "/api" in page
    rows = re.findall(r"<tr>\s*<th scope=\"row\".*?</tr>", page, re.S)
    texts = [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)).strip() for row in rows]
    assert texts[0] == "empty none yet 0"
    assert texts[1].startswith("order v1")
    assert texts[1].endswith("UTC 3")
    assert "not-theirs" not in page
    assert "manage.py deploy" in page


def test_version_without_a_name_is_shown_by_its_id(signed_in, org):
    machine = make_machine(org)
    machine.current_version = make_version(machine, client_info="")
    machine.save(update_fields=["current_version"])

    assert machine.current_version.public_id in signed_in.get("/").content.decode()


def test_hostile_version_name_is_escaped(signed_in, org):
    machine = make_machine(org)
    machine.current_version = make_version(machine, '"><script>alert(1)</script>')
    machine.save(update_fields=["current_version"])

    assert_strict(signed_in.get("/"))


def test_home_without_machines_says_what_to_do(signed_in):
    assert "No machine yet" in assert_strict(signed_in.get("/"))


def test_person_without_an_org_is_told(client):
    client.force_login(make_user())

    assert "You are in no org" in assert_strict(client.get("/"))


def test_person_in_several_orgs_chooses_by_the_address(org):
    user = make_member(org)
    other = make_org("Second")
    Membership.objects.create(org=other, user=user, role=Membership.Role.READ)
    make_machine(other, "of-second")
    stranger = make_org("Stranger")
    client = Client()
    client.force_login(user)

    assert "of-second" not in client.get("/").content.decode()
    assert "of-second" in client.get("/", {"org": other.public_id}).content.decode()
    for wrong in (stranger.public_id, "nonsense", "\0", ""):
        page = client.get("/", {"org": wrong}).content.decode()
        assert "of-second" not in page
        assert "Stranger" not in page


def test_counting_stops(signed_in, org, monkeypatch):
    monkeypatch.setattr(pages, "INSTANCES_COUNTED_MAX", 2)
    machine = make_machine(org, with_version=True)
    for number in range(4):
        make_instance(machine, f"i-{number}")

    assert "more than 2" in signed_in.get("/").content.decode()


def test_only_so_many_machines_are_shown(signed_in, org, monkeypatch):
    monkeypatch.setattr(pages, "MACHINES_SHOWN", 2)
    for slug in ("a", "b", "c"):
        make_machine(org, slug)

    page = signed_in.get("/").content.decode()

    assert 'title="b"' in page
    assert 'title="c"' not in page
    assert "Only the first 2 are shown" in page


def test_number_of_queries_does_not_grow(signed_in, org, django_assert_max_num_queries):
    for number in range(20):
        make_instance(make_machine(org, f"m-{number}", with_version=True))

    with django_assert_max_num_queries(4):
        signed_in.get("/")


def test_pages_about_signing_in_are_strict(client):
    path = sign_in_links.create_link(make_user(), datetime.now(UTC))

    assert_strict(client.get(path))
    assert_strict(client.get(reverse("sign-in-link", args=["unknown"])))


def test_other_paths_are_a_page(client):
    r = client.get("/nothing")

    assert r.status_code == 404
    assert "Not Found" in assert_strict(r)
    assert r["x-request-id"]


def test_wrong_method_on_a_page(client):
    assert client.post("/").status_code == 405


def test_a_bug_in_a_page_is_a_page_without_its_details(signed_in, monkeypatch):
    def fail(*_args):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(pages, "machine_rows", fail)
    signed_in.raise_request_exception = False

    r = signed_in.get("/")

    assert r.status_code == 500
    assert "secret detail" not in r.content.decode()
    assert r["x-request-id"] in r.content.decode()


def test_form_without_its_token_is_explained():
    strict = Client(enforce_csrf_checks=True)

    r = strict.post("/sign-out")

    assert r.status_code == 403
    assert "Try again" in assert_strict(r)


@pytest.mark.parametrize("name", ["tokens.css", "base.css", "logo.svg", "fonts/inter.woff2"])
def test_files_of_the_pages_are_there(name):
    assert finders.find(f"site/{name}")
