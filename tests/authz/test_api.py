from datetime import UTC, datetime

import pytest

from authz import access_tokens
from authz.models import AccessToken, Key, Membership, Org
from authz.secrets import decrypt, encrypt
from tests.factories import (
    Api,
    admin_api,
    assert_error,
    key_api,
    make_access_token,
    make_key,
    make_member,
    make_org,
    make_user,
)
from tests.fake_door import fake_door

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db


# --- /orgs --------------------------------------------------------------------------------


def test_orgs_lists_those_of_the_person():
    org = make_org("Acme")
    user = make_member(org)
    second = make_org("Second")
    Membership.objects.create(org=second, user=user, role=Membership.Role.READ)
    make_org("Not theirs")
    api = Api(make_access_token(user))

    r = api.get("/orgs")

    assert r.status_code == 200
    assert set(r.json()) == {"orgs"}
    assert [(org["name"], org["role"]) for org in r.json()["orgs"]] == [
        ("Acme", "admin"),
        ("Second", "read"),
    ]
    first = r.json()["orgs"][0]
    assert first["id"] == org.public_id
    assert set(first) == {"id", "name", "role", "createdAt", "limits"}
    assert all(type(limit) is int for limit in first["limits"].values())
    assert set(first["limits"]) == {"monthlyEventsLimit", "monthlyReadsLimit"}


def test_orgs_works_before_one_is_chosen_and_with_a_stale_choice():
    api = Api(make_access_token(make_user()), x_statebacked_org_id="org_gone")

    assert api.get("/orgs").json() == {"orgs": []}


def test_orgs_of_a_key_is_its_own():
    org = make_org("Acme")

    assert key_api(org, "org.read").get("/orgs").json()["orgs"][0]["id"] == org.public_id
    assert_error(key_api(org, "state.read").get("/orgs"), 403, "missing-scope")


def test_creating_an_org_makes_its_creator_admin():
    user = make_user()
    api = Api(make_access_token(user))

    r = api.post("/orgs", {"name": "Acme"})

    assert r.status_code == 200
    org = Org.objects.get(public_id=r.json()["id"])
    assert (org.name, org.allow_anonymous_access) == ("Acme", True)
    assert org.memberships.get().user == user
    assert org.memberships.get().role == "admin"
    assert [row["id"] for row in api.get("/orgs").json()["orgs"]] == [org.public_id]


def test_org_without_anonymous_access():
    Api(make_access_token(make_user())).post(
        "/orgs", {"name": "Acme", "allowAnonymousAccess": False}
    )

    assert not Org.objects.get().allow_anonymous_access


def test_a_key_creates_no_org():
    api = key_api(make_org())

    assert_error(api.post("/orgs", {"name": "Acme"}), 403, "missing-user")
    assert Org.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": 5}, "name"),
        ({"name": None}, "name"),
        ({"name": ["a"]}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "a" * 201}, "name"),
        ({"name": "a", "allowAnonymousAccess": "yes"}, "allowAnonymousAccess"),
        ({"name": "a", "allowAnonymousAccess": 1}, "allowAnonymousAccess"),
        ({"name": "a", "allowAnonymousAccess": None}, "allowAnonymousAccess"),
        (["name"], None),
        ("name", None),
        (5, None),
    ],
)
def test_bad_org_is_refused(body, parameter):
    api = Api(make_access_token(make_user()))

    assert_error(api.post("/orgs", body), 400, "invalid-parameter", parameter)
    assert not Org.objects.exists()


# --- /keys --------------------------------------------------------------------------------


def test_created_key_signs_tokens_and_shows_its_secret_once():
    org = make_org()
    api = admin_api(org)

    r = api.post("/keys", {"name": "server", "use": "production"})

    assert r.status_code == 200
    assert set(r.json()) == {"id", "key"}
    key = Key.objects.get(public_id=r.json()["id"])
    assert r.json()["key"].startswith("sbsec_")
    assert decrypt(bytes(key.secret_encrypted)) == r.json()["key"]
    assert r.json()["key"].encode() not in bytes(key.secret_encrypted)
    listed = api.get("/keys")
    assert r.json()["key"] not in listed.content.decode()
    assert listed.json()["keys"] == [
        {
            "id": key.public_id,
            "name": "server",
            "scopes": ["events.write", "indexes.read", "instances.write", "state.read"],
            "createdAt": listed.json()["keys"][0]["createdAt"],
        }
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"use": "ci"}, {"machines.read", "machines.write", "machine-versions.read"}),
        ({"use": "production", "scopes": ["logs.read"]}, {"logs.read"}),
        ({"use": "production", "scopes": []}, {"events.write", "state.read"}),
        ({"use": "production", "scopes": None}, {"events.write", "state.read"}),
        ({"use": None, "scopes": ["logs.read"]}, {"logs.read"}),
        ({"scopes": ["org-keys.write", "org.keys.write"]}, {"org.keys.write"}),
    ],
)
def test_scopes_of_a_new_key(given, expected):
    admin_api(make_org()).post("/keys", {"name": "k", **given})

    assert set(Key.objects.get().scopes) >= expected
    if given.get("scopes"):
        assert set(Key.objects.get().scopes) == expected


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"use": "ci"}, "name"),
        ({"name": "k"}, "scopes"),
        ({"name": "k", "scopes": []}, "scopes"),
        ({"name": "k", "scopes": ["no.such"]}, "scopes"),
        ({"name": "k", "scopes": "state.read"}, "scopes"),
        ({"name": "k", "scopes": [5]}, "scopes"),
        ({"name": "k", "scopes": [["state.read"]]}, "scopes"),
        ({"name": "k", "scopes": True}, "scopes"),
        ({"name": "k", "scopes": {"a": 1}}, "scopes"),
        ({"name": "k", "scopes": ["state.read"] * 1000}, "scopes"),
        ({"name": "k", "use": "no-such"}, "use"),
        ({"name": "k", "use": 5}, "use"),
        ({"name": "k", "use": ["ci"]}, "use"),
        ({"name": "k", "use": {}}, "use"),
        ({"name": 5, "use": "ci"}, "name"),
        ({"name": "\0", "use": "ci"}, "name"),
    ],
)
def test_bad_key_is_refused(body, parameter):
    assert_error(admin_api(make_org()).post("/keys", body), 400, "invalid-parameter", parameter)
    assert not Key.objects.exists()


def test_a_key_gets_no_scope_that_its_creator_has_not():
    org = make_org()
    api = key_api(org, "org.keys.write", "state.read")

    message = assert_error(
        api.post("/keys", {"name": "k", "scopes": ["state.read", "machines.admin"]}),
        403,
        "missing-scope",
    )
    assert "machines.admin" in message
    assert Key.objects.count() == 1
    assert api.post("/keys", {"name": "k", "scopes": ["state.read"]}).status_code == 200


@pytest.mark.parametrize("role", [Membership.Role.WRITE, Membership.Role.READ])
def test_keys_are_for_admins(role):
    org = make_org()
    api = Api(make_access_token(make_member(org, role)))
    key = make_key(org)

    assert_error(api.get("/keys"), 403, "missing-scope")
    assert_error(api.post("/keys", {"name": "k", "use": "ci"}), 403, "missing-scope")
    assert_error(api.delete(f"/keys/{key.key.public_id}"), 403, "missing-scope")
    assert Key.objects.count() == 1


def test_deleted_key_is_announced_and_stops(fake_door, django_capture_on_commit_callbacks):
    org = make_org()
    key = make_key(org)
    ends = Api(key.sign())
    assert ends.get("/machines").status_code == 200

    with django_capture_on_commit_callbacks(execute=True):
        r = admin_api(org).delete(f"/keys/{key.key.public_id}")

    assert (r.status_code, r.content) == (204, b"")
    assert fake_door.calls == [("key_deleted", key.key.public_id)]
    assert_error(ends.get("/machines"), 403, "missing-user")


def test_key_of_another_org_is_not_there(fake_door):
    key = make_key(make_org())
    api = admin_api(make_org())

    assert_error(api.delete(f"/keys/{key.key.public_id}"), 404, "not-found")
    assert_error(api.delete("/keys/sbk_unknown"), 404, "not-found")
    assert_error(api.delete("/keys/%00"), 404, "not-found")
    assert api.get("/keys").json() == {"keys": []}
    assert Key.objects.count() == 1
    assert fake_door.calls == []


def test_revoked_access_token_is_announced(fake_door, django_capture_on_commit_callbacks):
    token = make_access_token(make_member(make_org()))

    with django_capture_on_commit_callbacks(execute=True):
        access_tokens.revoke(AccessToken.objects.get())

    assert_error(Api(token).get("/machines"), 403, "missing-user")
    assert fake_door.calls == [("token_revoked", None)]


def test_secrets_survive_a_new_secret_key(settings):
    encrypted = encrypt("sbsec_x")

    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another secret key of this site, long enough"

    assert decrypt(encrypted) == "sbsec_x"


def test_several_orgs_need_a_choice_everywhere_else():
    user = make_member(make_org())
    Membership.objects.create(org=make_org(), user=user, role=Membership.Role.ADMIN)
    api = Api(make_access_token(user))

    assert_error(api.get("/machines"), 400, "specify-org")
    chosen = Api(make_access_token(user), x_statebacked_org_id=Org.objects.last().public_id)
    assert chosen.get("/machines").status_code == 200
    wrong = Api(make_access_token(user), x_statebacked_org_id="org_other")
    assert_error(wrong.get("/machines"), 403, "missing-org")


def test_creation_times_are_iso_in_milliseconds():
    org = make_org()
    org.created_at = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    org.save(update_fields=["created_at"])

    assert admin_api(org).get("/orgs").json()["orgs"][0]["createdAt"] == "2026-01-02T03:04:05.678Z"
