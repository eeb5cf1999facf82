import re
from datetime import UTC, datetime

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from authz import passwords, sign_in_links
from authz.models import Key, Membership
from tests.factories import make_key, make_member, make_org, make_user
from tests.fake_door import fake_door
from tests.pages import HOSTILE, assert_strict, browser_of, text_of, url

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def user():
    user = make_member(make_org())
    user.set_password(PASSWORD)
    user.save(update_fields=["password"])
    cache.clear()
    return user


def sign_in(client, user, password=PASSWORD, **more):
    return client.post("/sign-in", {"login": user.email, "password": password, **more})


# --- Signing in ---------------------------------------------------------------------------------


def test_signing_in_with_a_password(client, user):
    r = sign_in(client, user, next="/account")

    assert r["location"] == "/account"
    assert client.get("/account").status_code == 200


def test_wrong_password_and_unknown_address_look_the_same(client, user):
    wrong = text_of(assert_strict(sign_in(client, user, "wrong"), 422))
    unknown = client.post("/sign-in", {"login": "nobody@example.com", "password": PASSWORD})

    assert text_of(assert_strict(unknown, 422)) == wrong
    assert "do not match" in wrong
    assert "_auth_user_id" not in client.session


def test_person_without_a_password_can_not_sign_in_with_none(client):
    user = make_user()

    assert sign_in(client, user, "").status_code == 422
    assert sign_in(client, user, "!").status_code == 422


def test_person_who_is_not_active_can_not_sign_in(client, user):
    user.is_active = False
    user.save(update_fields=["is_active"])

    assert sign_in(client, user).status_code == 422


def test_guesses_are_bounded_even_when_the_last_is_right(client, user):
    for _ in range(passwords.GUESSES_MAX):
        assert sign_in(client, user, "wrong").status_code == 422

    r = sign_in(client, user)

    assert "too many wrong passwords" in assert_strict(r, 429)
    assert "_auth_user_id" not in client.session


def test_right_password_forgives_earlier_guesses(client, user):
    for _ in range(passwords.GUESSES_MAX - 1):
        sign_in(client, user, "wrong")
    sign_in(client, user)
    client.post("/sign-out")

    assert sign_in(client, user, "wrong").status_code == 422


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "javascript:x"])
def test_signing_in_leads_to_no_other_site(client, user, target):
    assert sign_in(client, user, next=target)["location"] == "/"
    assert client.get("/sign-in", {"next": target})["location"] == "/"


@pytest.mark.parametrize("email", ["", "x" * 255, "ada\0@example.com", "no address"])
def test_what_is_no_address_is_as_wrong_as_any_other(client, user, email):
    r = client.post("/sign-in", {"login": email, "password": PASSWORD})

    assert "do not match" in assert_strict(r, 422)


def test_address_of_a_host_without_a_domain_signs_in(client):
    user = make_user("ada@intranet")
    user.set_password(PASSWORD)
    user.save(update_fields=["password"])

    assert sign_in(client, user).status_code == 302


def test_program_gets_a_page_as_well(client, user):
    r = client.post(
        "/sign-in", {"login": "a", "password": "b"}, headers={"accept": "application/json"}
    )

    assert_strict(r, 422)


def test_signing_out(client, user):
    sign_in(client, user)

    client.post("/sign-out")

    assert client.get("/account")["location"] == "/sign-in?next=/account"
    assert client.get("/sign-out").status_code == 405


def test_hostile_address_is_escaped(client):
    r = client.post("/sign-in", {"login": HOSTILE, "password": "x"})

    assert_strict(r, 422)


def test_signed_out_page_tells_nothing_about_the_site(client, settings):
    org = make_org("Secret org")

    page = assert_strict(client.get("/sign-in"))

    assert "manage.py sign_in_link" in page
    assert org.name not in page
    assert str(settings.DATA_DIR) not in page


def test_pages_about_links_are_strict(client):
    path = sign_in_links.create_link(make_user(), datetime.now(UTC))

    assert_strict(client.get(path))
    assert_strict(client.get(reverse("sign-in-link", args=["unknown"])), 410)


# --- The account --------------------------------------------------------------------------------


def test_first_password_needs_no_old_one(user):
    newcomer = make_member(make_org())
    client = Client()
    client.force_login(newcomer)

    r = client.post("/account", {"password1": PASSWORD, "password2": PASSWORD})

    assert r.status_code == 302
    newcomer.refresh_from_db()
    assert newcomer.check_password(PASSWORD)
    assert client.get("/account").status_code == 200  # still signed in


def test_changing_the_password_needs_the_old_one_and_ends_other_sessions(user):
    here, elsewhere = Client(), Client()
    here.force_login(user)
    elsewhere.force_login(user)
    new = {"password1": "another long password", "password2": "another long password"}

    wrong = here.post("/account", {"oldpassword": "wrong", **new})
    assert "This is not your password" in assert_strict(wrong, 422)
    assert elsewhere.get("/account").status_code == 200

    here.post("/account", {"oldpassword": PASSWORD, **new})
    assert here.get("/account").status_code == 200
    assert elsewhere.get("/account").status_code == 302


@pytest.mark.parametrize(("first", "second"), [("short", "short"), (PASSWORD, PASSWORD + "x")])
def test_password_that_is_refused_says_why(user, first, second):
    client = Client()
    client.force_login(user)
    given = {"oldpassword": PASSWORD, "password1": first, "password2": second}

    page = assert_strict(client.post("/account", given), 422)

    assert 'aria-invalid="true"' in page


def test_guesses_at_the_old_password_are_bounded(user):
    client = Client()
    client.force_login(user)
    guess = {
        "oldpassword": "wrong",
        "password1": "another long one",
        "password2": "another long one",
    }

    answers = [client.post("/account", guess).status_code for _ in range(6)]

    assert answers == [422] * 5 + [429]
    assert "Wait a minute" in assert_strict(client.post("/account", guess), 429)


def test_password_keeps_its_spaces(user):
    client = Client()
    client.force_login(user)
    spaced = {"password1": " spaces at both ends ", "password2": " spaces at both ends "}

    client.post("/account", {"oldpassword": PASSWORD, **spaced})

    assert sign_in(Client(), user, " spaces at both ends ").status_code == 302


def test_account_of_a_person_without_an_org(client):
    client.force_login(make_user())

    assert_strict(client.get("/account"))


@pytest.mark.parametrize(
    "path", ["/signup", "/accounts/signup/", "/accounts/login/", "/password/reset"]
)
def test_nobody_signs_up(client, path):
    assert client.get(path).status_code == 404


# --- Keys ---------------------------------------------------------------------------------------


def test_secret_of_a_key_is_shown_once():
    org = make_org()
    browser = browser_of(org)

    made = browser.post(url(org, "/keys"), {"name": HOSTILE, "use": "production"})

    page = assert_strict(made)
    secret = re.search(r"sbsec_[\w-]+", page)
    key = Key.objects.get(org=org)
    assert secret is not None
    assert set(key.scopes) == {"events.write", "state.read", "instances.write", "indexes.read"}
    assert "no-store" in made["cache-control"]
    again = assert_strict(browser.get(url(org, "/keys")))
    assert "sbsec_" not in again
    assert key.public_id in again


def test_key_with_chosen_scopes():
    org = make_org()

    browser_of(org).post(
        url(org, "/keys"), {"name": "a", "use": "custom", "scopes": ["state.read", "logs.read"]}
    )

    assert sorted(Key.objects.get(org=org).scopes) == ["logs.read", "state.read"]


@pytest.mark.parametrize(
    "given",
    [
        {"name": "", "use": "ci"},
        {"name": "x" * 201, "use": "ci"},
        {"name": "a", "use": "custom"},
        {"name": "a", "use": "custom", "scopes": ["everything"]},
    ],
)
def test_key_that_lacks_something_is_not_made(given):
    org = make_org()

    assert_strict(browser_of(org).post(url(org, "/keys"), given), 422)

    assert not Key.objects.exists()


@pytest.mark.parametrize("role", [Membership.Role.READ, Membership.Role.WRITE])
def test_only_admins_see_and_make_keys(role):
    org = make_org()
    key = make_key(org).key
    browser = browser_of(org, role)

    page = assert_strict(browser.get(url(org, "/keys")))
    made = browser.post(url(org, "/keys"), {"name": "a", "use": "ci"})
    deleted = browser.post(url(org, f"/keys/{key.public_id}/delete"))

    assert "Keys are for admins" in page
    assert key.public_id not in page
    assert made.status_code == 403
    assert deleted.status_code == 403
    assert Key.objects.count() == 1


def test_deleting_a_key_asks_first(fake_door, django_capture_on_commit_callbacks):
    org = make_org()
    key = make_key(org).key
    browser = browser_of(org)

    asked = assert_strict(browser.get(url(org, f"/keys?delete={key.public_id}")))
    assert "stops working at once" in asked
    with django_capture_on_commit_callbacks(execute=True):
        browser.post(url(org, f"/keys/{key.public_id}/delete"))

    assert not Key.objects.exists()
    assert fake_door.calls == [("key_deleted", key.public_id)]


def test_key_of_another_org_is_not_there(fake_door):
    org = make_org()
    theirs = make_key(make_org()).key

    r = browser_of(org).post(url(org, f"/keys/{theirs.public_id}/delete"))

    assert r.status_code == 404
    assert Key.objects.count() == 1
