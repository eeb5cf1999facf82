import gzip
import json
import re
import threading
import zlib
from datetime import timedelta
from typing import Self

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.utils import timezone

from instances.runtime.bundle import BundleInfo
from instances.runtime.errors import InvalidBundle, RunnerUnavailable
from machines import uploads
from machines.gzip_code import GZIP_BYTES_MAX, SOURCE_BYTES_MAX
from machines.models import (
    CodeUpload,
    Machine,
    MachineVersion,
    MachineVersionMigration,
    MigrationCode,
    VersionCode,
)
from tests.factories import (
    Answer,
    Api,
    admin_api,
    assert_error,
    key_api,
    make_machine,
    make_org,
    make_version,
)
from tests.fake_door import accept, fake_door

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db

SOURCE = b"export default 'a machine \xc3\xa9';\n" * 10


class Publishing:
    """The steps of a deployment, as the published client takes them."""

    collection = "v"
    id_name = "machineVersionId"
    signed_id_parameter = "signedMachineVersionId"
    check = "check_bundle"
    made: type[MachineVersion] | type[MachineVersionMigration] = MachineVersion
    code: type[VersionCode] | type[MigrationCode] = VersionCode

    def __init__(self, api: Api, machine: str = "order") -> None:
        self.api = api
        self.machine = machine

    def attempt(self) -> Answer:
        # The client sends an empty body of type application/json, and `gzip` without a value.
        return self.api.send("POST", f"/machines/{self.machine}/v?gzip")

    def provision(self) -> Self:
        r = self.attempt()
        assert r.status_code == 200, r.content
        self.signed_id: str = r.json()[self.id_name]
        self.url: str = r.json()["codeUploadUrl"]
        self.fields: dict[str, str] = r.json()["codeUploadFields"]
        return self

    def upload(self, content: bytes = SOURCE, **fields: object) -> Answer:
        form = {
            **self.fields,
            "content-type": "application/javascript",
            "file": SimpleUploadedFile("order.js", content, "application/javascript"),
            **fields,
        }
        path = self.url.removeprefix("http://testserver")
        return Client().post(path, {k: v for k, v in form.items() if v is not None})

    def upload_gzip(self, content: bytes, **fields: object) -> Answer:
        return self.upload(content, **{"content-encoding": "gzip", **fields})

    def finalize(self, body: object = None, *, api: Api | None = None, machine: str = "") -> Answer:
        machine = machine or self.machine
        path = f"/machines/{machine}/{self.collection}/{self.signed_id}"
        return (api or self.api).put(path, body)


class PublishingMigration(Publishing):
    """The same for a migration between the machine's first and second version."""

    collection = "migrations"
    id_name = "machineVersionMigrationId"
    signed_id_parameter = "signedMachineVersionMigrationId"
    check = "check_migration"
    made = MachineVersionMigration
    code = MigrationCode

    def attempt(self) -> Answer:
        first, second = MachineVersion.objects.filter(machine__slug=self.machine).order_by("id")
        ids = {"fromMachineVersionId": first.public_id, "toMachineVersionId": second.public_id}
        # The client says the code, too.
        body = {**ids, "gzippedCode": {"0": 31, "1": 139}}
        return self.api.send("POST", f"/machines/{self.machine}/migrations?gzip", body)


@pytest.fixture
def publish(fake_door) -> Publishing:
    org = make_org()
    make_machine(org)
    return Publishing(admin_api(org)).provision()


@pytest.fixture(params=[Publishing, PublishingMigration], ids=["version", "migration"])
def either(request, fake_door) -> Publishing:
    """A provisional version or migration: they differ in little."""
    org = make_org()
    machine = make_machine(org)
    publishing: Publishing = request.param(admin_api(org))
    if request.param is PublishingMigration:
        make_version(machine)
        make_version(machine)
    return publishing.provision()


def nothing_was_made(publishing: Publishing) -> bool:
    versions = 2 if publishing.made is MachineVersionMigration else 0
    return (
        MachineVersion.objects.count() == VersionCode.objects.count() == versions
        and not MachineVersionMigration.objects.exists()
        and not MigrationCode.objects.exists()
    )


def test_three_steps_make_a_current_version(publish, fake_door, django_capture_on_commit_callbacks):
    uploaded = publish.upload_gzip(gzip.compress(SOURCE))
    with django_capture_on_commit_callbacks(execute=True):
        r = publish.finalize({"clientInfo": "v1", "makeCurrent": True})

    assert (uploaded.status_code, uploaded.content) == (204, b"")
    assert r.status_code == 200
    version = MachineVersion.objects.get()
    assert r.json() == {"machineVersionId": version.public_id}
    assert version.client_info == "v1"
    assert version.xstate_major == 5
    assert version.created_by is not None
    assert Machine.objects.get().current_version == version
    code = VersionCode.objects.get()
    assert gzip.decompress(code.source_gzip) == SOURCE
    assert gzip.decompress(code.commonjs_gzip).decode() == accept(SOURCE).commonjs
    assert (code.source_bytes, code.externals) == (len(SOURCE), [])
    assert not CodeUpload.objects.exists()
    assert fake_door.calls == [
        ("check_bundle", SOURCE),
        ("version_published", Machine.objects.get().pk),
    ]


def test_code_may_be_uploaded_as_it_is(either):
    assert either.upload(SOURCE).status_code == 204
    r = either.finalize({})

    assert r.status_code == 200
    code = either.code.objects.get(pk=either.made.objects.get(public_id=r.json()[either.id_name]))
    assert gzip.decompress(code.source_gzip) == SOURCE


@pytest.mark.parametrize("body", [None, {}, {"makeCurrent": False}, {"makeCurrent": None}])
def test_version_is_not_made_current_unless_asked(publish, body):
    publish.upload()

    assert publish.finalize(body).status_code == 200
    assert Machine.objects.get().current_version is None
    assert MachineVersion.objects.get().client_info == ""


def test_warnings_of_the_check_are_answered(either, fake_door):
    fake_door.check = lambda source: BundleInfo("", ["npm:xstate@5"], 5, ["no tags"])
    either.upload()

    assert either.finalize({}).json()["warnings"] == ["no tags"]
    assert either.code.objects.latest("pk").externals == ["npm:xstate@5"]


def test_signed_id_and_url_need_no_escaping(either):
    assert set(either.signed_id) & set("/?#%& +") == set()
    assert re.match(r"http://testserver/api/uploads/(ver|mig)_[\w-]+$", either.url)


def test_configured_address_is_used_for_uploads(fake_door, settings):
    settings.PUBLIC_URL_GIVEN = "https://sb.example.com"
    org = make_org()
    make_machine(org)

    url = Publishing(admin_api(org)).provision().url

    assert url.startswith("https://sb.example.com/api/uploads/")


# --- A bad bundle -------------------------------------------------------------------------


def test_bad_bundle_is_explained_and_nothing_is_created(either, fake_door):
    def refuse(source: bytes) -> BundleInfo:
        raise InvalidBundle("It does not export allowRead")

    fake_door.check = refuse
    either.upload()

    message = assert_error(either.finalize({"makeCurrent": True}), 400, "invalid-parameter")
    assert "allowRead" in message
    assert nothing_was_made(either)
    assert Machine.objects.get().current_version is None
    fake_door.check = accept
    assert either.finalize({}).status_code == 200


def test_no_runner_is_no_fault_of_the_bundle(either, fake_door):
    def unavailable(source: bytes) -> BundleInfo:
        raise RunnerUnavailable("all runners are busy")

    fake_door.check = unavailable
    either.upload()

    r = either.finalize({})

    assert_error(r, 503, "unavailable")
    assert r["retry-after"] == "1"
    fake_door.check = accept
    assert either.finalize({}).status_code == 200


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"clientInfo": 5}, "clientInfo"),
        ({"clientInfo": "a" * 1001}, "clientInfo"),
        ({"clientInfo": "\0"}, "clientInfo"),
        ({"makeCurrent": "true"}, "makeCurrent"),
        ({"makeCurrent": 1}, "makeCurrent"),
        ({"indexSelectors": {"by": "$.user"}}, "indexSelectors"),
        ({"indexSelectors": "by"}, "indexSelectors"),
        ([], None),
    ],
)
def test_bad_finalizing_is_refused(publish, fake_door, body, parameter):
    publish.upload()

    assert_error(publish.finalize(body), 400, "invalid-parameter", parameter)
    assert not MachineVersion.objects.exists()
    assert fake_door.calls == []
    assert publish.finalize({"indexSelectors": {}}).status_code == 200


# --- The signed id ------------------------------------------------------------------------


def test_finalizing_before_the_upload_is_refused(either):
    message = assert_error(
        either.finalize({}), 400, "invalid-parameter", either.signed_id_parameter
    )
    assert "uploaded" in message
    either.upload()
    assert either.finalize({}).status_code == 200


def test_finalizing_twice_is_a_conflict(either):
    either.upload()
    either.finalize({})
    made = either.made.objects.count()

    assert_error(either.finalize({}), 409, "conflict")
    assert either.made.objects.count() == made


@pytest.mark.parametrize("change", ["x", "", "a:b:c", "%00", "é", "." * 2000])
def test_forged_id_is_refused(either, change):
    either.upload()
    either.signed_id = f"{either.signed_id}{change}" if change == "x" else change or "-"

    assert_error(either.finalize({}), 400, "invalid-parameter", either.signed_id_parameter)
    assert nothing_was_made(either)


def test_unsigned_id_is_refused(either):
    either.upload()
    either.signed_id = CodeUpload.objects.get().public_id

    assert_error(either.finalize({}), 400, "invalid-parameter", either.signed_id_parameter)


def test_id_of_another_machine_or_org_is_not_there(either):
    either.upload()
    org = Machine.objects.get().org
    make_machine(org, "other")
    elsewhere = make_org()
    make_machine(elsewhere)

    same_org = either.finalize({}, machine="other")
    other_org = either.finalize({}, api=admin_api(elsewhere))

    assert_error(same_org, 404, "not-found")
    assert_error(other_org, 404, "not-found")
    assert nothing_was_made(either)


def test_id_of_the_other_kind_is_refused(either):
    either.upload()
    other = PublishingMigration if either.made is MachineVersion else Publishing
    finalizing = other(either.api)
    finalizing.signed_id = either.signed_id

    r = finalizing.finalize({})

    assert_error(r, 400, "invalid-parameter", other.signed_id_parameter)
    assert nothing_was_made(either)


def test_id_expires(either, monkeypatch):
    either.upload()
    monkeypatch.setattr(uploads, "UPLOAD_LIFETIME", timedelta(seconds=-1))

    message = assert_error(
        either.finalize({}), 400, "invalid-parameter", either.signed_id_parameter
    )
    assert "too old" in message


# --- The upload ---------------------------------------------------------------------------


def test_an_address_takes_code_once(either):
    assert either.upload(b"first").status_code == 204

    assert_error(either.upload(b"second"), 409, "conflict")
    either.finalize({})
    assert gzip.decompress(either.code.objects.latest("pk").source_gzip) == b"first"
    assert_error(either.upload(b"third"), 404, "not-found")


@pytest.mark.parametrize("secret", ["", "wrong", "é", "\0", None])
def test_upload_needs_its_secret(either, secret):
    r = either.upload(uploadSecret=secret)

    assert_error(r, 403, "wrong-upload-secret")
    assert CodeUpload.objects.get().source_gzip is None


def test_secret_as_a_file_is_no_secret(publish):
    secret = SimpleUploadedFile("s", publish.fields["uploadSecret"].encode())

    assert_error(publish.upload(uploadSecret=secret), 403, "wrong-upload-secret")


def test_secret_of_another_upload_is_refused(publish):
    other = Publishing(publish.api).provision()

    assert_error(
        publish.upload(uploadSecret=other.fields["uploadSecret"]), 403, "wrong-upload-secret"
    )


def test_only_the_hash_of_the_secret_is_stored(either):
    assert either.fields["uploadSecret"] not in str(CodeUpload.objects.values().get())


@pytest.mark.parametrize("name", ["ver_unknown", "%00", "x" * 500, "é"])
def test_unknown_address_is_not_there(publish, name):
    publish.url = f"http://testserver/api/uploads/{name}"

    assert_error(publish.upload(), 404, "not-found")


def test_old_address_is_not_there_and_goes_with_the_next(either):
    CodeUpload.objects.update(expires_at=timezone.now())

    assert_error(either.upload(), 404, "not-found")
    either.provision()
    assert CodeUpload.objects.count() == 1


def test_waiting_uploads_are_bounded(either, monkeypatch):
    monkeypatch.setattr(uploads, "UPLOADS_WAITING_MAX", 2)
    either.provision()

    r = either.attempt()

    assert_error(r, 429, "too-many-uploads")
    assert int(r["retry-after"]) > 0


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", b"\x1f\x8b", gzip.compress(SOURCE)[:-9]],
    ids=["empty", "text", "only the start", "cut off"],
)
def test_code_that_is_not_gzipped_is_refused(either, content):
    assert_error(either.upload_gzip(content), 400, "invalid-parameter", "file")
    assert CodeUpload.objects.get().source_gzip is None
    assert either.upload_gzip(gzip.compress(SOURCE)).status_code == 204


def test_something_behind_the_gzipped_code_is_refused(publish):
    twice = gzip.compress(SOURCE) + gzip.compress(SOURCE)

    assert_error(publish.upload_gzip(twice), 400, "invalid-parameter", "file")


@pytest.mark.parametrize("encoding", ["br", "GZIP", "gzip, gzip", "\0"])
def test_other_encodings_are_refused(publish, encoding):
    r = publish.upload(SOURCE, **{"content-encoding": encoding})

    assert_error(r, 400, "invalid-parameter", "content-encoding")


def test_form_without_a_file_is_refused(publish):
    assert_error(publish.upload(file=None), 400, "invalid-parameter", "file")
    assert_error(publish.upload(file="text"), 400, "invalid-parameter", "file")


def random_bytes(size: int) -> bytes:
    """Bytes that gzip cannot make smaller; the same at each call."""
    import random

    return random.Random(1).randbytes(size)


def test_code_may_be_as_large_as_the_limit(publish):
    fits = b"x" * SOURCE_BYTES_MAX

    assert publish.upload(fits).status_code == 204


def test_code_that_is_too_large_raw_is_refused(publish):
    assert_error(publish.upload(b"x" * (SOURCE_BYTES_MAX + 1)), 413, "too-large", "file")


def test_code_that_is_too_large_gzipped_is_refused(publish):
    content = random_bytes(GZIP_BYTES_MAX + 1)

    assert_error(publish.upload(content), 413, "too-large", "file")
    assert_error(publish.upload_gzip(gzip.compress(content)), 413, "too-large", "file")


def test_form_beyond_all_limits_is_not_even_read(publish):
    assert_error(publish.upload(b"x" * (SOURCE_BYTES_MAX + 100_000)), 413, "too-large", "file")


def test_bomb_is_not_unpacked(either):
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(10_000_000)) for _ in range(60)) + packer.flush()
    assert len(bomb) < GZIP_BYTES_MAX

    assert_error(either.upload_gzip(bomb), 413, "too-large", "file")


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("application/json", b"{}", 415, "unsupported-media-type"),
        ("text/plain", b"x", 415, "unsupported-media-type"),
        ("multipart/form-data", b"x", 400, "invalid-parameter"),
        ("multipart/form-data; boundary=a", b"x", 403, "wrong-upload-secret"),
        ("multipart/form-data; boundary=é", b"x", 400, "invalid-parameter"),
    ],
)
def test_upload_that_is_no_form_is_refused(publish, content_type, body, status, code):
    path = publish.url.removeprefix("http://testserver/api")

    r = Api().send("POST", path, body, content_type)

    assert r.status_code == status
    assert r.json()["code"] == code


def test_form_with_too_many_fields_is_refused(publish):
    r = publish.upload(**{f"field-{n}": "x" for n in range(1100)})

    assert_error(r, 400, "invalid-parameter")


def test_ci_key_can_deploy(fake_door):
    org = make_org()
    api = key_api(
        org, "machines.read", "machines.write", "machine-versions.read", "machine-versions.write"
    )
    api.post("/machines", {"slug": "order"})
    publish = Publishing(api).provision()
    publish.upload()

    assert publish.finalize({"makeCurrent": True}).status_code == 200
    assert MachineVersion.objects.get().created_by is None


@pytest.mark.django_db(transaction=True)
def test_two_finalizations_at_the_same_moment_make_one(either, fake_door):
    before = either.made.objects.count()
    either.upload()
    both_have_read = threading.Barrier(2)

    def check(source: bytes) -> BundleInfo:
        both_have_read.wait(timeout=10)
        return accept(source)

    fake_door.check = check
    statuses: list[int] = []

    def finalize() -> None:
        try:
            statuses.append(either.finalize({}).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=finalize) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [200, 409]
    assert either.made.objects.count() == before + 1


def test_answers_are_json(publish):
    assert json.loads(publish.api.post("/machines/order/v").content)
