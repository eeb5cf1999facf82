import pytest

from authz.models import Membership
from authz.scopes import ALL
from instances.models import Instance
from machines.confirmation import name_hmac
from machines.models import Machine, MachineVersion, VersionCode
from tests.factories import (
    Api,
    admin_api,
    assert_error,
    key_api,
    make_access_token,
    make_instance,
    make_machine,
    make_member,
    make_org,
    make_version,
)
from tests.fake_door import fake_door

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db

# Names that no machine can have, as they may stand in a path.
HOSTILE_NAMES = [
    "%00",
    "a%00b",
    "%2e%2e",
    "..",
    "a%2Fb",
    "a%20b",
    "a%0A",
    "é",
    "%F0%9F%92%A9",
    "%FF",
    "'%20OR%201=1--",
    "%27",
    "a" * 129,
    "a" * 5000,
]


# --- Creating and listing -----------------------------------------------------------------


def test_created_machine_is_listed():
    api = admin_api(make_org())

    r = api.post("/machines", {"slug": "order"})

    assert r.status_code == 201
    assert api.get("/machines").json() == {
        "machines": [{"slug": "order", "createdAt": r.json()["createdAt"]}]
    }


def test_list_shows_the_current_version():
    org = make_org()
    machine = make_machine(org, with_version=True)

    listed = admin_api(org).get("/machines").json()["machines"][0]

    version = listed["currentVersion"]
    assert version["id"] == machine.current_version.public_id
    assert version["clientInfo"] == "v1"
    assert version["createdAt"].endswith("Z")


def test_same_name_twice_is_a_conflict_in_one_org_only():
    org = make_org()
    admin_api(org).post("/machines", {"slug": "order"})

    assert_error(admin_api(org).post("/machines", {"slug": "order"}), 409, "conflict")
    assert admin_api(make_org()).post("/machines", {"slug": "order"}).status_code == 201
    assert Machine.objects.count() == 2


@pytest.mark.parametrize("slug", ["a", "A-b_9", "-", "_", "a" * 128])
def test_names_that_machines_may_have(slug):
    api = admin_api(make_org())

    assert api.post("/machines", {"slug": slug}).status_code == 201
    assert api.get(f"/machines/{slug}").json()["machine"]["slug"] == slug


@pytest.mark.parametrize(
    "slug",
    [
        "",
        " ",
        "a b",
        "a/b",
        "a.b",
        "a\n",
        "\na",
        "a\0",
        "é",
        "a" * 129,
        5,
        None,
        True,
        [],
        {},
        ["a"],
    ],
)
def test_names_that_machines_may_not_have(slug):
    api = admin_api(make_org())

    assert_error(api.post("/machines", {"slug": slug}), 400, "invalid-parameter", "slug")
    assert not Machine.objects.exists()


def test_indexes_are_refused_for_now():
    api = admin_api(make_org())

    assert_error(
        api.post("/machines", {"slug": "a", "indexes": ["by-user"]}),
        400,
        "invalid-parameter",
        "indexes",
    )
    assert not Machine.objects.exists()
    assert api.post("/machines", {"slug": "a", "indexes": []}).status_code == 201


def test_unknown_fields_are_ignored():
    assert admin_api(make_org()).post("/machines", {"slug": "a", "x": 1}).status_code == 201


def test_machines_come_in_pages():
    org = make_org()
    for number in range(120):
        make_machine(org, f"m-{number:03}")
    api = admin_api(org)

    first = api.get("/machines").json()
    second = api.get("/machines", cursor=first["cursor"]).json()
    third = api.get("/machines", cursor=second["cursor"]).json()

    pages = [[machine["slug"] for machine in page["machines"]] for page in (first, second, third)]
    assert [len(page) for page in pages] == [50, 50, 20]
    assert [*pages[0], *pages[1], *pages[2]] == [f"m-{number:03}" for number in range(120)]
    assert "cursor" not in third


def test_exactly_one_page_has_no_cursor():
    org = make_org()
    for number in range(50):
        make_machine(org, f"m-{number}")

    assert "cursor" not in admin_api(org).get("/machines").json()


BAD_CURSORS = [
    "garbage!",
    "%",
    "a",
    "\0",
    "é",
    "W10",  # []
    "W1sxXV0",  # [[1]]
    "WzEsMl0",  # [1,2]
    "W251bGxd",  # [null]
    "W3RydWVd",  # [true]
    "WzEuNV0",  # [1.5]
    "Wy0xXQ",  # [-1]
    "WzkyMjMzNzIwMzY4NTQ3NzU4MDhd",  # [9223372036854775808]
    "WyJcdTAwMDAiXQ",  # ["\u0000"]
    "WyJcdWQ4MDAiXQ",  # ["\ud800"]
    "Wy" * 400,
    "W" * 3000,
]


@pytest.mark.parametrize("cursor", BAD_CURSORS, ids=range(len(BAD_CURSORS)))
def test_cursor_that_no_page_has_given_is_refused(cursor):
    org = make_org()
    make_machine(org)
    api = admin_api(org)

    of_machine = [f"/machines/order/{name}" for name in ("v", "migrations", "i")]
    for path in ("/machines", *of_machine, "/orgs", "/keys"):
        assert_error(api.get(path, cursor=cursor), 400, "invalid-parameter", "cursor")


def test_empty_cursor_is_the_first_page():
    assert admin_api(make_org()).get("/machines", cursor="").status_code == 200


# --- One machine --------------------------------------------------------------------------


def test_machine_is_answered_nested_and_flat():
    org = make_org()
    machine = make_machine(org, with_version=True)

    body = admin_api(org).get("/machines/order").json()

    nested = body.pop("machine")
    assert nested == body
    assert set(nested) == {"slug", "createdAt", "currentVersion", "indexes"}
    assert nested["indexes"] == []
    assert nested["currentVersion"]["id"] == machine.current_version.public_id


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_hostile_names_are_not_there(name):
    api = admin_api(make_org())

    assert_error(api.get(f"/machines/{name}"), 404, "not-found")
    assert_error(api.get(f"/machines/{name}/v"), 404, "not-found")


def test_machine_of_another_org_is_not_there(fake_door):
    make_machine(make_org(), with_version=True)
    api = admin_api(make_org())
    confirmation = {
        "dangerDataWillBeDeletedForever": True,
        "hmacSha256OfMachineNameWithMachineNameKey": name_hmac("order", "order"),
    }

    assert api.get("/machines").json() == {"machines": []}
    for r in (
        api.get("/machines/order"),
        api.delete("/machines/order", confirmation),
        api.get("/machines/order/v"),
        api.post("/machines/order/v"),
        api.put("/machines/order/v/x", {}),
    ):
        missing = api.get("/machines/no-such")
        assert assert_error(r, 404, "not-found") == missing.json()["error"]
    assert Machine.objects.count() == 1
    assert fake_door.calls == []


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/machines", "machines.read"),
        ("POST", "/machines", "machines.write"),
        ("GET", "/machines/order", "machines.read"),
        ("DELETE", "/machines/order", "machines.admin"),
        ("GET", "/machines/order/v", "machine-versions.read"),
        ("POST", "/machines/order/v", "machine-versions.write"),
        ("PUT", "/machines/order/v/x", "machine-versions.write"),
    ],
)
def test_each_operation_has_its_scope(method, path, scope):
    org = make_org()
    make_machine(org)

    without = key_api(org, *(ALL - {scope}))
    with_it = key_api(org, scope)

    message = assert_error(without.send(method, path, {}), 403, "missing-scope")
    assert scope in message
    assert with_it.send(method, path, {}).status_code != 403


def test_readers_change_nothing():
    org = make_org()
    make_machine(org)
    reader = Api(make_access_token(make_member(org, Membership.Role.READ)))

    assert reader.get("/machines").status_code == 200
    assert_error(reader.post("/machines", {"slug": "b"}), 403, "missing-scope")
    assert_error(reader.delete("/machines/order", {}), 403, "missing-scope")
    assert Machine.objects.count() == 1


# --- Deleting -----------------------------------------------------------------------------


def confirmation(name: str, **changes: object) -> dict[str, object]:
    return {
        "dangerDataWillBeDeletedForever": True,
        "hmacSha256OfMachineNameWithMachineNameKey": name_hmac(name, name),
        **changes,
    }


def test_known_value_of_the_confirmation():
    # echo -n order | openssl dgst -sha256 -hmac order -binary | basenc --base64url
    assert name_hmac("order", "order") == "JeWLJ_o7hqw6JfFkbx04sm8Ez6RDehTOGortWUG-gME"


def test_deleting_takes_versions_and_their_code(fake_door, django_capture_on_commit_callbacks):
    org = make_org()
    machine = make_machine(org, with_version=True)
    make_version(machine)
    keep = make_machine(org, "keep", with_version=True)
    machine_id = machine.pk

    with django_capture_on_commit_callbacks(execute=True):
        r = admin_api(org).delete("/machines/order", confirmation("order"))

    assert (r.status_code, r.content) == (204, b"")
    assert list(Machine.objects.all()) == [keep]
    assert list(MachineVersion.objects.all()) == [keep.current_version]
    assert VersionCode.objects.count() == 1
    assert fake_door.calls == [("version_published", machine_id)]


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (None, "dangerDataWillBeDeletedForever"),
        ({}, "dangerDataWillBeDeletedForever"),
        (
            confirmation("order", dangerDataWillBeDeletedForever=False),
            "dangerDataWillBeDeletedForever",
        ),
        (
            confirmation("order", dangerDataWillBeDeletedForever="true"),
            "dangerDataWillBeDeletedForever",
        ),
        (
            {"dangerDataWillBeDeletedForever": True},
            "hmacSha256OfMachineNameWithMachineNameKey",
        ),
        (confirmation("other"), "hmacSha256OfMachineNameWithMachineNameKey"),
        (
            confirmation("order", hmacSha256OfMachineNameWithMachineNameKey=5),
            "hmacSha256OfMachineNameWithMachineNameKey",
        ),
        (
            confirmation("order", hmacSha256OfMachineNameWithMachineNameKey="é"),
            "hmacSha256OfMachineNameWithMachineNameKey",
        ),
        ([], None),
    ],
)
def test_wrong_confirmation_names_the_parameter(fake_door, body, parameter):
    org = make_org()
    make_machine(org)

    r = admin_api(org).delete("/machines/order", body)

    assert_error(r, 400, "invalid-parameter", parameter)
    assert Machine.objects.count() == 1
    assert fake_door.calls == []


def test_machine_with_instances_stays(fake_door):
    org = make_org()
    instance = make_instance(make_machine(org, with_version=True))
    api = admin_api(org)

    assert_error(api.delete("/machines/order", confirmation("order")), 409, "invalid-state")
    assert Machine.objects.count() == 1
    instance.status = Instance.Status.DELETED
    instance.save(update_fields=["status"])
    assert api.delete("/machines/order", confirmation("order")).status_code == 204


# --- Versions -----------------------------------------------------------------------------


def test_versions_are_listed_newest_first():
    org = make_org()
    machine = make_machine(org)
    for number in range(60):
        make_version(machine, f"v{number}")
    make_version(make_machine(org, "other"), "not this one's")
    api = admin_api(org)

    first = api.get("/machines/order/v").json()
    second = api.get("/machines/order/v", cursor=first["cursor"]).json()

    listed = [version["clientInfo"] for version in first["versions"] + second["versions"]]
    assert listed == [f"v{number}" for number in reversed(range(60))]
    assert set(first["versions"][0]) == {"id", "createdAt", "clientInfo"}
    assert "cursor" not in second
