import gzip

import msgspec
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from authz.models import Membership
from instances import places
from instances.models import Instance
from instances.pages import definitions
from instances.runtime.bundle import BundleInfo
from instances.runtime.errors import InvalidBundle as BundleRefused
from machines import code_view, diagrams, state_counts
from machines.flow import CannotDescribe, Direction, Graph, draw
from machines.models import Machine, MachineVersion, VersionCode, VersionDiagram
from machines.thumbs import lit, thumb_of
from tests.factories import (
    make_instance,
    make_machine,
    make_migration,
    make_org,
    make_version,
)
from tests.fake_door import fake_door
from tests.instances.graphs import definition
from tests.pages import HOSTILE, assert_strict, browser_of, text_of, url

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db

TYPESCRIPT = 'import { setup } from "xstate";\nconst id: string = "x";\nexport default setup({});\n'
STATES = {
    "order": '{"state":"idle","tags":[],"done":false}',
    "parallel": '{"state":{"open":{"a":"one","b.c":"two"}},"tags":[],"done":false}',
    "done": '{"state":"shipped","tags":[],"done":true}',
}


@pytest.fixture
def org():
    return make_org()


@pytest.fixture
def browser(org):
    return browser_of(org)


@pytest.fixture
def machine(org):
    return make_machine(org, with_version=True)


# --- The list -----------------------------------------------------------------------------------


def test_list_without_machines_teaches(browser, org):
    text = text_of(assert_strict(browser.get(url(org, "/machines"))))

    assert "No machine yet" in text
    assert "Start from an example" in text


def test_list_tells_no_match_from_no_machine(browser, org, machine):
    text = text_of(assert_strict(browser.get(url(org, "/machines?q=zzz"))))

    assert "No machine matches" in text
    assert "No machine yet" not in text


def test_filter_answers_the_rows_alone(browser, org, machine):
    make_machine(org, "chat")

    r = browser.get(url(org, "/machines?q=rd"), headers={"HX-Request": "true"})

    page = r.content.decode()
    assert "<html" not in page
    assert "order" in page
    assert "chat" not in page


def test_list_says_where_instances_are(browser, org, machine):
    make_instance(machine, "a", state=STATES["parallel"])
    make_instance(machine, "b", state=STATES["done"])
    make_instance(machine, "c", state=STATES["done"], status=Instance.Status.DELETED)

    text = text_of(browser.get(url(org, "/machines")).content.decode())

    assert "one + two 1, finished or other 1" in text


# --- Counting -----------------------------------------------------------------------------------


def test_states_hold_those_in_states_inside_them(machine):
    make_instance(machine, "a", state=STATES["parallel"])
    make_instance(machine, "b", state=STATES["order"])

    where = state_counts.whereabouts(machine)

    assert where.total == 2
    assert where.by_path() == {
        "idle": 1,
        "open": 1,
        "open.a": 1,
        "open.a.one": 1,
        "open.b\\.c": 1,
        "open.b\\.c.two": 1,
    }
    assert where.by_node()["open.b.c"] == 1
    assert where.versions == {machine.current_version_id: 2}


def test_many_are_counted_by_their_places(machine, monkeypatch):
    monkeypatch.setattr(state_counts, "COUNTED_MAX", 2)
    one, two = make_instance(machine, "a"), make_instance(machine, "b")
    few = state_counts.whereabouts(machine)
    three = make_instance(machine, "c")
    unknown = state_counts.whereabouts(machine)
    places.repair([one.pk, two.pk, three.pk])

    many = state_counts.whereabouts(machine)

    assert (few.total, few.is_approximate) == (2, False)
    assert (unknown.total, unknown.is_approximate) == (3, True)
    assert (many.total, many.is_approximate) == (3, False)
    assert many.states == {one.state: 3}
    assert many.versions == {machine.current_version_id: 3}


def test_counts_are_marked_while_a_dead_process_owes_some(machine, monkeypatch):
    monkeypatch.setattr(state_counts, "COUNTED_MAX", 0)
    places.repair([make_instance(machine, "a").pk])
    places.begin("dead", "a-node-that-is-gone")
    places.lose_dead("living")

    assert state_counts.whereabouts(machine).is_approximate


def test_bars_add_up(machine):
    for number in range(10):
        make_instance(machine, f"i-{number}", state=STATES["order" if number % 3 else "done"])

    shares = state_counts.whereabouts(machine).shares()

    assert sum(share.count for share in shares) == 10
    assert shares[0].start == 0
    assert all(share.start + share.width <= 100 for share in shares)


# --- Creating and deploying ---------------------------------------------------------------------


def test_new_machine_from_pasted_typescript(browser, org, fake_door):
    r = browser.post(url(org, "/new-machine"), {"name": "pasted", "code": TYPESCRIPT})

    assert r["location"] == url(org, "/machines/pasted")
    version = Machine.objects.get(org=org, slug="pasted").current_version
    assert version.created_by is not None
    source = gzip.decompress(VersionCode.objects.get(version=version).source_gzip).decode()
    assert 'from "npm:xstate@5"' in source
    assert ": string" not in source


def test_deploying_an_uploaded_file(browser, org, machine, fake_door):
    before = machine.current_version
    file = SimpleUploadedFile("order.ts", TYPESCRIPT.encode())

    r = browser.post(url(org, "/machines/order/deploy"), {"file": file, "reference": HOSTILE[:30]})

    version = machine.versions.latest("id")
    assert r["location"] == url(org, f"/machines/order/versions/{version.public_id}")
    assert version.client_info == HOSTILE[:30]
    machine.refresh_from_db()
    assert machine.current_version == before  # the box was not ticked


def test_code_that_does_not_compile_is_shown_where_it_is_wrong(browser, org, fake_door):
    code = 'import { setup } from "xstate";\nexport default setup({\n  a: 1\n  b: <script>,\n});\n'

    r = browser.post(
        url(org, "/new-machine"), {"name": "broken", "code": code, "file_name": "b.js"}
    )

    page = assert_strict(r, 422)
    text = text_of(page)
    assert "This code can’t become a version." in text
    assert "Expected" in text
    assert "b: &lt;script&gt;" in page
    assert 'class="l-n err"' in page
    assert not Machine.objects.filter(org=org).exists()
    assert fake_door.calls == []


def test_code_that_does_not_load_changes_nothing(browser, org, machine, fake_door):
    def refuse(_source):
        raise BundleRefused("machine.js:1:4: no default export\n<b>details</b>")

    fake_door.check = refuse

    r = browser.post(url(org, "/machines/order/deploy"), {"code": TYPESCRIPT, "make_current": "on"})

    page = assert_strict(r, 422)
    assert "no default export" in page
    assert "const id: string" in page  # what was typed is still there
    assert machine.versions.count() == 1


def test_warnings_of_a_version_are_shown(browser, org, machine, fake_door):
    fake_door.check = lambda source: BundleInfo("", [], 5, ["<i>careful</i>"])

    r = browser.post(url(org, "/machines/order/deploy"), {"code": TYPESCRIPT}, follow=True)

    assert "Warning: &lt;i&gt;careful&lt;/i&gt;" in r.content.decode()


@pytest.mark.parametrize("name", ["", "a b", "ü", "x" * 129, "../etc", "\0"])
def test_machine_needs_a_name_that_is_one(browser, org, fake_door, name):
    r = browser.post(url(org, "/new-machine"), {"name": name, "code": TYPESCRIPT})

    assert "1 to 128 letters" in assert_strict(r, 422)
    assert not Machine.objects.exists()


def test_machine_that_exists_is_not_made_again(browser, org, machine, fake_door):
    r = browser.post(url(org, "/new-machine"), {"name": "order", "code": TYPESCRIPT})

    assert "There is a machine order already" in assert_strict(r, 422)
    assert machine.versions.count() == 1


def test_imports_are_never_resolved_on_the_server(browser, org, fake_door):
    code = 'import secret from "/etc/passwd";\nimport "./x.ts";\nexport default secret;\n'

    browser.post(url(org, "/new-machine"), {"name": "m", "code": code})

    source = fake_door.calls[0][1].decode()
    assert 'from "/etc/passwd"' in source
    assert "root:" not in source


@pytest.mark.parametrize("path", ["/new-machine", "/machines/order/deploy"])
def test_reader_can_not_deploy(org, machine, fake_door, path):
    reader = browser_of(org, Membership.Role.READ)

    r = reader.post(url(org, path), {"name": "m", "code": TYPESCRIPT})

    assert r.status_code == 403
    assert MachineVersion.objects.count() == 1
    assert fake_door.calls == []


@pytest.mark.parametrize("name", ["toggler", "order", "approval", "chat-room", "counter"])
def test_example_fills_the_form(browser, org, name):
    page = assert_strict(browser.get(url(org, f"/new-machine?example={name}")))

    assert "import { " in page
    assert f'value="{name}"' in page


# --- Versions -----------------------------------------------------------------------------------


def test_making_a_version_current(
    browser, org, machine, fake_door, django_capture_on_commit_callbacks
):
    second = make_version(machine, "v2")

    with django_capture_on_commit_callbacks(execute=True):
        r = browser.post(url(org, f"/machines/order/versions/{second.public_id}"))

    assert r.status_code == 302
    machine.refresh_from_db()
    assert machine.current_version == second
    assert fake_door.calls == [("version_published", machine.pk)]


def test_making_a_version_current_leads_to_no_other_site(browser, org, machine, fake_door):
    path = url(org, f"/machines/order/versions/{machine.current_version.public_id}")

    assert browser.post(path, {"next": "//evil.example/"})["location"] == "/"
    assert browser.post(path, {"next": url(org)})["location"] == url(org)
    assert browser.post(path)["location"] == path


def test_reader_can_not_make_a_version_current(org, machine, fake_door):
    second = make_version(machine, "v2")

    r = browser_of(org, "read").post(url(org, f"/machines/order/versions/{second.public_id}"))

    assert r.status_code == 403
    machine.refresh_from_db()
    assert machine.current_version != second


def test_version_of_another_machine_is_not_found(browser, org, machine, fake_door):
    other = make_version(make_machine(org, "other"))
    theirs = make_version(make_machine(make_org(), "order"))

    for version in (other, theirs):
        path = url(org, f"/machines/order/versions/{version.public_id}")
        assert browser.get(path).status_code == 404
        assert browser.post(path).status_code == 404


def test_code_is_shown_inert_and_complete(browser, org, machine):
    source = 'const a = "</pre><script>alert(1)</script>"; // <b>\nexport default 12;\n'
    VersionCode.objects.update(source_gzip=gzip.compress(source.encode()))
    version = machine.current_version.public_id

    page = assert_strict(browser.get(url(org, f"/machines/order/versions/{version}?view=code")))

    assert "&lt;/pre&gt;&lt;script&gt;" in page
    assert "<b>\n" not in page


@pytest.mark.parametrize(
    "source",
    [
        "",
        "\n\n",
        "`a ${b}\nc` /* x\ny */ 'z",
        'const x = "unclosed\nlet y = 1.5e3;',
        "/" * 5_000,
        "'" * 5_001,
        '"\\' * 5_000,
    ],
)
def test_marking_words_loses_no_character(source):
    lines = list(code_view.lines_of(source))

    assert (
        "\n".join("".join(word.text for word in line) for line in lines)[:1_000] == source[:1_000]
    )


# --- Drawings -----------------------------------------------------------------------------------


GRAPH = (
    b'{"name":"m","xstate":5,"states":['
    b'{"number":0,"key":"m","id":"m","parent":null,"type":"compound","initial":1},'
    b'{"number":1,"key":"idle","id":"m.idle","parent":0,"type":"atomic"},'
    b'{"number":2,"key":"<b>","id":"m.b","parent":0,"type":"final"}],"transitions":['
    b'{"number":0,"source":1,"targets":[2],"kind":"event","label":"go","eventType":"go"}]}'
)


@pytest.fixture
def described(monkeypatch):
    """How often the code of a version was run to read its definition."""
    calls = []

    def describe(code):
        calls.append(code)
        return Graph.decode(GRAPH)

    monkeypatch.setattr(diagrams, "describe", describe)
    VersionCode.objects.update(commonjs_gzip=gzip.compress(b""))
    return calls


def diagram_path(machine):
    version = machine.current_version.public_id
    return url(machine.org, f"/machines/{machine.slug}/versions/{version}/diagram")


def test_diagram_is_made_once_and_kept(browser, machine, described):
    VersionCode.objects.update(commonjs_gzip=gzip.compress(b""))

    first = browser.get(diagram_path(machine)).content.decode()
    second = browser.get(diagram_path(machine)).content.decode()

    assert first == second
    assert 'data-node="idle"' in first
    assert "<b>" not in first
    assert len(described) == 1


def test_diagram_is_drawn_anew_when_drawing_has_changed(browser, machine, described):
    VersionCode.objects.update(commonjs_gzip=gzip.compress(b""))
    browser.get(diagram_path(machine))
    VersionDiagram.objects.update(drawing_key="old", drawing=b"")

    assert 'data-node="idle"' in browser.get(diagram_path(machine)).content.decode()
    assert len(described) == 1


def test_new_version_is_drawn_in_the_direction_of_the_one_before(machine, described):
    first = machine.current_version
    assert first is not None
    drawing = diagrams.drawing_of(first)
    assert drawing is not None
    other: Direction = "LR" if drawing.direction == "TB" else "TB"
    packed = msgspec.msgpack.encode(msgspec.structs.replace(drawing, direction=other))
    VersionDiagram.objects.update(drawing=packed)
    second = make_version(machine, "second")
    VersionCode.objects.update(commonjs_gzip=gzip.compress(b""))

    found = diagrams.drawing_of(second)

    assert found is not None
    assert found.direction == other


def test_version_that_can_not_be_described_says_why_and_is_not_tried_again(
    browser, machine, monkeypatch
):
    VersionCode.objects.update(commonjs_gzip=gzip.compress(b""))
    calls = []

    def describe(code):
        calls.append(code)
        raise CannotDescribe("it exports <nothing>")

    monkeypatch.setattr(diagrams, "describe", describe)

    for _ in range(2):
        page = browser.get(diagram_path(machine)).content.decode()
        assert "it exports &lt;nothing&gt;" in page
    assert len(calls) == 1


def test_states_are_opened_and_closed_in_the_picture(browser, machine, described):
    VersionCode.objects.update(commonjs_gzip=gzip.compress(b""))
    path = diagram_path(machine).replace("/diagram", "/picture")

    opened = browser.get(path, {"fold": ["", "nonsense"]})
    closed = browser.get(path)

    assert opened.content == closed.content
    assert opened["content-type"] == "image/svg+xml"
    assert VersionDiagram.objects.get().drawing  # only the usual picture is kept


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [("svg", 200, "<style>"), ("mmd", 200, "stateDiagram"), ("exe", 404, "no such picture")],
)
def test_exporting_a_diagram(browser, machine, described, kind, status, text):
    VersionCode.objects.update(commonjs_gzip=gzip.compress(b""))

    r = browser.get(diagram_path(machine).replace("/diagram", f"/export.{kind}"))

    assert r.status_code == status
    assert text in r.content.decode()
    if status == 200:
        assert r["content-security-policy"].startswith("sandbox;")


def test_thumbnail_is_lit_where_instances_are(browser, org, machine, described):
    VersionCode.objects.update(commonjs_gzip=gzip.compress(b""))
    make_instance(machine)

    page = browser.get(url(org, "/machines/order/thumb")).content.decode()
    listed = browser.get(url(org, "/machines")).content.decode()

    assert 'class="leaf lit-3"' in page
    assert page.strip() in listed


def test_thumbnail_holds_no_words():
    drawing = draw(Graph.decode(GRAPH))

    thumb = thumb_of(drawing.svg)

    assert {box["path"] for box in thumb["boxes"]} == {"idle", "<b>"}
    assert thumb["wires"]
    shown = lit(thumb, {"idle": 1, "<b>": 9}, 10)
    assert shown is not None
    assert [box["kind"] for box in shown["boxes"]] == ["leaf lit-1", "leaf lit-3"]


# --- Settings -----------------------------------------------------------------------------------


def test_deleting_a_machine_needs_its_name(browser, org, machine, fake_door):
    wrong = browser.post(url(org, "/machines/order/settings"), {"name": "ordr"})
    right = browser.post(url(org, "/machines/order/settings"), {"name": "order"})

    assert "Type the name" in assert_strict(wrong, 422)
    assert right["location"] == url(org, "/machines")
    assert not Machine.objects.filter(pk=machine.pk).exists()


def test_machine_with_instances_stays(browser, org, machine, fake_door):
    make_instance(machine)

    r = browser.post(url(org, "/machines/order/settings"), {"name": "order"})

    assert "has instances" in assert_strict(r, 422)
    assert Machine.objects.filter(pk=machine.pk).exists()


def test_only_admins_delete_machines(org, machine, fake_door):
    r = browser_of(org, "write").post(url(org, "/machines/order/settings"), {"name": "order"})

    assert r.status_code == 403
    assert Machine.objects.filter(pk=machine.pk).exists()


# --- Migrations ---------------------------------------------------------------------------------

MIGRATION = (
    "export const upgradeState = (path) => path;\nexport const upgradeContext = () => ({});\n"
)


@pytest.fixture
def second(machine):
    """The machine's current version; its first one has the instances."""
    second = make_version(machine, "v2")
    machine.current_version = second
    machine.save(update_fields=["current_version"])
    return second


def first_of(machine):
    return machine.versions.get(client_info="v1")


def know_states(version, *names):
    states = [("closed", "root", "final"), *((name, "root") for name in names)]
    definitions.keep(version.pk, definition(states, []))


def migrations_url(machine, path=""):
    return url(machine.org, f"/machines/{machine.slug}/{path or 'migrations'}")


def written(from_version, to_version, source):
    migration = make_migration(from_version, to_version)
    migration.code.source_gzip = gzip.compress(source.encode())
    migration.code.save(update_fields=["source_gzip"])
    return migration


def add_form(machine, code=MIGRATION, **fields):
    versions = {"from": first_of(machine).public_id, "to": machine.current_version.public_id}
    return {**versions, "code": code, **fields}


def test_versions_say_how_to_come_to_the_current_one(browser, machine, second):
    third = make_version(machine, "v3")
    make_instance(machine, version=first_of(machine))
    path = url(machine.org, "/machines/order/versions")
    before = text_of(assert_strict(browser.get(path)))
    make_migration(first_of(machine), third)
    make_migration(third, second)

    after = text_of(browser.get(path).content.decode())

    assert before.count("No migration to the current version yet") == 2
    assert f"--from {third.public_id} --to {second.public_id}" in before
    assert "Can be upgraded to current: through 2 migrations" in after
    assert "Can be upgraded to current: through 1 migration" in after
    assert "No migration to the current version yet" not in after


def test_migrations_of_one_version_teach(browser, machine):
    text = text_of(assert_strict(browser.get(migrations_url(machine))))

    assert "the first one comes with the second version" in text


def test_first_migration_is_taught_by_the_two_newest_versions(browser, machine, second):
    make_version(machine, "v0")  # newer than both, whatever it is called
    know_states(second, "draft", "review")
    know_states(machine.versions.get(client_info="v0"), "draft", "checking")
    make_instance(machine, version=second, state='{"state":"review","tags":[],"done":false}')

    page = assert_strict(browser.get(migrations_url(machine)))

    text = text_of(page)
    assert "From v2 to v0" in text
    assert "review 1 instance" in text
    assert 'data-copy="// Upgrades instances of order from v2' in page
    assert "upgradeContext" in text


def test_migrations_are_listed_and_the_replaced_one_is_marked(browser, machine, second):
    for _ in range(2):
        make_migration(first_of(machine), second)

    text = text_of(assert_strict(browser.get(migrations_url(machine))))

    assert text.count("replaced by a newer one") == 1
    assert "v1 → to v2" in text


def test_migration_is_shown_and_downloaded(browser, machine, second):
    migration = written(first_of(machine), second, "// </pre><script>alert(1)</script>\n")
    path = migrations_url(machine, f"migrations/{migration.public_id}")

    page = assert_strict(browser.get(path))
    file = browser.get(f"{path}/code.js")

    assert "&lt;/pre&gt;&lt;script&gt;" in page
    assert file.content == b"// </pre><script>alert(1)</script>\n"
    assert file["content-disposition"] == f'attachment; filename="{migration.public_id}.js"'
    assert "sandbox" in file["content-security-policy"]


def test_migration_of_another_machine_is_not_found(browser, org, machine, second):
    other = make_machine(org, "other")
    theirs = make_migration(make_version(other), make_version(other, "v2"))

    for path in (f"migrations/{theirs.public_id}", f"migrations/{theirs.public_id}/code.js"):
        assert browser.get(migrations_url(machine, path)).status_code == 404


def test_new_migration_begins_with_the_version_that_has_most_instances(browser, machine, second):
    make_version(machine, "v3")
    make_instance(machine, version=first_of(machine))
    know_states(first_of(machine), "draft", "review")
    know_states(second, "draft")

    page = assert_strict(browser.get(migrations_url(machine, "new-migration")))

    assert f'<option value="{first_of(machine).public_id}" selected>v1' in page
    assert f'<option value="{second.public_id}" selected>v2 (current)' in page
    assert "To do: where do instances in review go?" in page


def test_migration_is_added_by_the_form(browser, machine, second, fake_door):
    r = browser.post(migrations_url(machine, "new-migration"), add_form(machine))

    (migration,) = machine.migrations.all()
    assert r["location"] == migrations_url(machine, f"migrations/{migration.public_id}")
    assert (migration.from_version, migration.to_version) == (first_of(machine), second)
    assert migration.created_by is not None
    assert [name for name, _ in fake_door.calls] == ["check_migration"]
    assert "upgradeState" in gzip.decompress(migration.code.source_gzip).decode()


def test_migration_that_the_sandbox_refuses_is_shown_with_the_reason(
    browser, machine, second, fake_door
):
    def refuse(source):
        raise BundleRefused("it exports no upgradeContext")

    fake_door.check = refuse
    r = browser.post(migrations_url(machine, "new-migration"), add_form(machine, "let mine = 1"))

    page = assert_strict(r, 422)
    assert "can’t become a migration" in page
    assert "it exports no upgradeContext" in page
    assert "let mine = 1" in page
    assert not machine.migrations.exists()


def test_migration_that_can_not_be_read_is_shown_with_its_line(browser, machine, second, fake_door):
    form = add_form(machine, "export const upgradeState = ;", file_name="m.js")
    page = assert_strict(browser.post(migrations_url(machine, "new-migration"), form), 422)

    assert 'class="l-n err"' in page
    assert fake_door.calls == []


def test_migration_to_the_same_version_is_refused(browser, machine, second, fake_door):
    form = add_form(machine) | {"from": second.public_id}
    page = assert_strict(browser.post(migrations_url(machine, "new-migration"), form), 422)

    assert "Choose two different versions" in page
    assert not machine.migrations.exists()


def test_other_versions_get_another_draft(browser, machine, second):
    form = add_form(machine, "lost", do="draft")
    r = browser.post(migrations_url(machine, "new-migration"), form)

    old, new = first_of(machine).public_id, second.public_id
    assert r["location"] == f"{migrations_url(machine, 'new-migration')}?from={old}&to={new}"


def test_migration_begins_with_the_code_of_the_one_that_it_replaces(browser, machine, second):
    migration = written(first_of(machine), second, "// as it was")
    path = migrations_url(machine, f"new-migration?like={migration.public_id}")

    assert "// as it was</textarea>" in browser.get(path).content.decode()


def test_reader_adds_no_migration(org, machine, second, fake_door):
    reader = browser_of(org, "read")
    page = assert_strict(reader.get(migrations_url(machine, "new-migration")))

    r = reader.post(migrations_url(machine, "new-migration"), add_form(machine))

    assert "This needs the role write" in page
    assert r.status_code == 403
    assert not machine.migrations.exists()


def test_migration_between_other_machines_versions_is_not_found(
    browser, machine, second, fake_door
):
    other = make_version(make_machine(machine.org, "other"))
    form = add_form(machine) | {"from": other.public_id}

    assert browser.post(migrations_url(machine, "new-migration"), form).status_code == 404
    path = migrations_url(machine, f"new-migration?from={other.public_id}")
    assert browser.get(path).status_code == 404
