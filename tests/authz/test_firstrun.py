from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from authz import sign_in_links
from authz.errors import InvalidSignInLink
from authz.firstrun import ensure_first_org
from authz.models import Membership, Org, SignInLink, User
from tests.factories import make_member, make_org, make_user

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def token_of(path: str) -> str:
    return path.rsplit("/", 1)[1]


# --- The first start ----------------------------------------------------------------------


def test_an_empty_site_gets_an_admin_an_org_and_a_link():
    first = ensure_first_org()

    assert first.created
    assert first.user.email == "admin@localhost"
    assert first.org.name == "My org"
    assert Membership.objects.get().role == Membership.Role.ADMIN
    assert first.sign_in_path.startswith("/sign-in/")


def test_a_second_start_changes_nothing_but_the_link():
    first = ensure_first_org()

    again = ensure_first_org()

    assert not again.created
    assert (again.user, again.org) == (first.user, first.org)
    assert again.sign_in_path != first.sign_in_path
    assert (User.objects.count(), Org.objects.count(), SignInLink.objects.count()) == (1, 1, 1)


def test_no_link_is_made_once_the_person_has_signed_in(client):
    client.post(ensure_first_org().sign_in_path)

    assert ensure_first_org().sign_in_path is None


def test_an_org_without_a_usable_admin_does_not_count():
    make_member(make_org(), Membership.Role.READ)
    gone = make_member(make_org())
    gone.is_active = False
    gone.save(update_fields=["is_active"])

    assert ensure_first_org().created


# --- Links --------------------------------------------------------------------------------


def test_a_link_signs_in_once(client):
    user = make_user()
    path = sign_in_links.create_link(user, datetime.now(UTC))

    r = client.post(path)

    assert (r.status_code, r["location"]) == (302, "/")
    assert client.session["_auth_user_id"] == str(user.pk)
    other = Client()
    assert other.post(path).status_code == 410
    assert "_auth_user_id" not in other.session


def test_looking_at_a_link_does_not_use_it_up(client):
    path = sign_in_links.create_link(make_user("ann@example.com"), datetime.now(UTC))

    for _ in range(2):
        r = client.get(path)
        assert r.status_code == 200
        assert "ann@example.com" in r.content.decode()
        assert "no-store" in r["cache-control"]
    client.head(path)

    assert "_auth_user_id" not in client.session
    assert client.post(path).status_code == 302


def test_signing_in_needs_the_forms_own_token():
    path = sign_in_links.create_link(make_user(), datetime.now(UTC))
    strict = Client(enforce_csrf_checks=True)

    assert strict.post(path).status_code == 403
    assert SignInLink.objects.get().used_at is None


def test_a_link_works_for_24_hours():
    token = token_of(sign_in_links.create_link(make_user(), NOW))

    assert sign_in_links.find(token, NOW + timedelta(hours=24, seconds=-1))
    with pytest.raises(InvalidSignInLink, match="too old"):
        sign_in_links.use(token, NOW + timedelta(hours=24))


def test_a_new_link_replaces_one_that_was_not_used():
    user = make_user()
    first = sign_in_links.create_link(user, NOW)

    sign_in_links.create_link(user, NOW)

    with pytest.raises(InvalidSignInLink):
        sign_in_links.use(token_of(first), NOW)


def test_link_of_an_inactive_person_is_refused():
    user = make_user()
    token = token_of(sign_in_links.create_link(user, NOW))
    user.is_active = False
    user.save(update_fields=["is_active"])

    with pytest.raises(InvalidSignInLink):
        sign_in_links.use(token, NOW)


@pytest.mark.parametrize("token", ["x", "signin_unknown", "%00", "é", "a" * 3000])
def test_unknown_link_is_a_page(client, token):
    for r in (client.get(f"/sign-in/{token}"), client.post(f"/sign-in/{token}")):
        assert r.status_code == 410
        assert "sign_in_link" in r.content.decode()


def test_only_the_hash_of_a_link_is_stored():
    token = token_of(sign_in_links.create_link(make_user(), NOW))

    assert token not in str(SignInLink.objects.values().get())


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("/machines?a=1", "/machines?a=1"),
        ("//evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("machines", "/"),
        ("", "/"),
        ("/%0d%0aSet-Cookie:a=b", "/%0d%0aSet-Cookie:a=b"),
        ("/\r\nSet-Cookie:a=b", "/%0D%0ASet-Cookie:a=b"),
    ],
)
def test_next_leads_to_no_other_site(client, wanted, got):
    path = sign_in_links.create_link(make_user(), datetime.now(UTC))

    assert client.post(path, {"next": wanted})["location"] == got


def test_signing_out_ends_the_session(client):
    client.force_login(make_user())

    assert client.get("/sign-out").status_code == 405
    r = client.post("/sign-out")

    assert (r.status_code, r["location"]) == (302, "/")
    assert "_auth_user_id" not in client.session
