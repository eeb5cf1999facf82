import gzip
import json
import threading
import zlib
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.utils import timezone

from instances.runtime.bundle import BundleInfo
from instances.runtime.errors import InvalidBundle, RunnerUnavailable
from machines import publishing
from machines.gzip_code import GZIP_BYTES_MAX, SOURCE_BYTES_MAX
from machines.models import CodeUpload, Machine, MachineVersion, VersionCode
from tests.factories import Answer, Api, admin_api, assert_error, key_api, make_machine, make_org
from tests.fake_door import accept, fake_door

__all__ = ["fake_door"]
pytestmark = pytest.mark.django_db

SOURCE = b"export default 'a machine \xc3\xa9';\n" * 10


class Publishing:
    """The steps of a deployment, as the published client takes them."""

    def __init__(self, api: Api, machine: str = "order") -> None:
        self.api = api
        self.machine = machine

    def provision(self) -> "Publishing":
        # The client sends an empty body of type application/json, and `gzip` without a value.
        r = self.api.send("POST", f"/machines/{self.machine}/v?gzip")
        assert r.status_code == 200, r.content
        self.signed_id: str = r.json()["machineVersionId"]
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

    def finalize(self, body: object = None) -> Answer:
        return self.api.put(f"/machines/{self.machine}/v/{self.signed_id}", body)


@pytest.fixture
def publish(fake_door) -> Publishing:
    org = make_org()
    make_machine(org)
    return Publishing(admin_api(org)).provision()


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


def test_code_may_be_uploaded_as_it_is(publish):
    assert publish.upload(SOURCE).status_code == 204
    assert publish.finalize({}).status_code == 200

    assert gzip.decompress(VersionCode.objects.get().source_gzip) == SOURCE


@pytest.mark.parametrize("body", [None, {}, {"makeCurrent": False}, {"makeCurrent": None}])
def test_version_is_not_made_current_unless_asked(publish, body):
    publish.upload()

    assert publish.finalize(body).status_code == 200
    assert Machine.objects.get().current_version is None
    assert MachineVersion.objects.get().client_info == ""


def test_warnings_of_the_check_are_answered(publish, fake_door):
    fake_door.check = lambda source: BundleInfo("", ["npm:xstate@5"], 5, ["no tags"])
    publish.upload()

    assert publish.finalize({}).json()["warnings"] == ["no tags"]
    assert VersionCode.objects.get().externals == ["npm:xstate@5"]


def test_signed_id_and_url_need_no_escaping(publish):
    assert set(publish.signed_id) & set("/?#%& +") == set()
    assert publish.url.startswith("http://testserver/api/uploads/ver_")


def test_configured_address_is_used_for_uploads(fake_door, settings):
    settings.PUBLIC_URL_GIVEN = "https://sb.example.com"
    org = make_org()
    make_machine(org)

    url = Publishing(admin_api(org)).provision().url

    assert url.startswith("https://sb.example.com/api/uploads/")


# --- A bad bundle -------------------------------------------------------------------------


def test_bad_bundle_is_explained_and_nothing_is_created(publish, fake_door):
    def refuse(source: bytes) -> BundleInfo:
        raise InvalidBundle("It does not export allowRead")

    fake_door.check = refuse
    publish.upload()

    message = assert_error(publish.finalize({"makeCurrent": True}), 400, "invalid-parameter")
    assert "allowRead" in message
    assert not MachineVersion.objects.exists()
    assert not VersionCode.objects.exists()
    assert Machine.objects.get().current_version is None


def test_no_runner_is_no_fault_of_the_bundle(publish, fake_door):
    def unavailable(source: bytes) -> BundleInfo:
        raise RunnerUnavailable("all runners are busy")

    fake_door.check = unavailable
    publish.upload()

    r = publish.finalize({})

    assert_error(r, 503, "unavailable")
    assert r["retry-after"] == "1"
    fake_door.check = accept
    assert publish.finalize({}).status_code == 200


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


def test_finalizing_before_the_upload_is_refused(publish):
    message = assert_error(publish.finalize({}), 400, "invalid-parameter", "signedMachineVersionId")
    assert "uploaded" in message
    publish.upload()
    assert publish.finalize({}).status_code == 200


def test_finalizing_twice_is_a_conflict(publish):
    publish.upload()
    publish.finalize({})

    assert_error(publish.finalize({}), 409, "conflict")
    assert MachineVersion.objects.count() == 1


@pytest.mark.parametrize("change", ["x", "", "a:b:c", "%00", "é", "." * 2000])
def test_forged_id_is_refused(publish, change):
    publish.upload()
    publish.signed_id = f"{publish.signed_id}{change}" if change == "x" else change or "-"

    assert_error(publish.finalize({}), 400, "invalid-parameter", "signedMachineVersionId")
    assert not MachineVersion.objects.exists()


def test_unsigned_version_id_is_refused(publish):
    publish.upload()
    publish.signed_id = CodeUpload.objects.get().public_id

    assert_error(publish.finalize({}), 400, "invalid-parameter", "signedMachineVersionId")


def test_id_of_another_machine_or_org_is_not_there(publish):
    publish.upload()
    org = Machine.objects.get().org
    make_machine(org, "other")
    elsewhere = make_org()
    make_machine(elsewhere)

    same_org = publish.api.put(f"/machines/other/v/{publish.signed_id}", {})
    other_org = admin_api(elsewhere).put(f"/machines/order/v/{publish.signed_id}", {})

    assert_error(same_org, 404, "not-found")
    assert_error(other_org, 404, "not-found")
    assert not MachineVersion.objects.exists()


def test_id_expires(publish, monkeypatch):
    publish.upload()
    monkeypatch.setattr(publishing, "UPLOAD_LIFETIME", timedelta(seconds=-1))

    message = assert_error(publish.finalize({}), 400, "invalid-parameter", "signedMachineVersionId")
    assert "too old" in message


# --- The upload ---------------------------------------------------------------------------


def test_an_address_takes_code_once(publish):
    assert publish.upload(b"first").status_code == 204

    assert_error(publish.upload(b"second"), 409, "conflict")
    publish.finalize({})
    assert gzip.decompress(VersionCode.objects.get().source_gzip) == b"first"
    assert_error(publish.upload(b"third"), 404, "not-found")


@pytest.mark.parametrize("secret", ["", "wrong", "é", "\0", None])
def test_upload_needs_its_secret(publish, secret):
    r = publish.upload(uploadSecret=secret)

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


def test_only_the_hash_of_the_secret_is_stored(publish):
    assert publish.fields["uploadSecret"] not in str(CodeUpload.objects.values().get())


@pytest.mark.parametrize("name", ["ver_unknown", "%00", "x" * 500, "é"])
def test_unknown_address_is_not_there(publish, name):
    publish.url = f"http://testserver/api/uploads/{name}"

    assert_error(publish.upload(), 404, "not-found")


def test_old_address_is_not_there_and_goes_with_the_next(publish):
    CodeUpload.objects.update(expires_at=timezone.now())

    assert_error(publish.upload(), 404, "not-found")
    publish.provision()
    assert CodeUpload.objects.count() == 1


def test_waiting_uploads_are_bounded(publish, monkeypatch):
    monkeypatch.setattr(publishing, "UPLOADS_WAITING_MAX", 2)
    publish.provision()

    r = publish.api.post("/machines/order/v")

    assert_error(r, 429, "too-many-uploads")
    assert int(r["retry-after"]) > 0


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", b"\x1f\x8b", gzip.compress(SOURCE)[:-9]],
    ids=["empty", "text", "only the start", "cut off"],
)
def test_code_that_is_not_gzipped_is_refused(publish, content):
    assert_error(publish.upload_gzip(content), 400, "invalid-parameter", "file")
    assert CodeUpload.objects.get().source_gzip is None
    assert publish.upload_gzip(gzip.compress(SOURCE)).status_code == 204


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


def test_bomb_is_not_unpacked(publish):
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(10_000_000)) for _ in range(60)) + packer.flush()
    assert len(bomb) < GZIP_BYTES_MAX

    assert_error(publish.upload_gzip(bomb), 413, "too-large", "file")


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
def test_two_finalizations_at_the_same_moment_make_one_version(fake_door):
    org = make_org()
    make_machine(org)
    publish = Publishing(admin_api(org)).provision()
    publish.upload()
    both_have_read = threading.Barrier(2)

    def check(source: bytes) -> BundleInfo:
        both_have_read.wait(timeout=10)
        return accept(source)

    fake_door.check = check
    statuses: list[int] = []

    def finalize() -> None:
        try:
            statuses.append(publish.finalize({}).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=finalize) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [200, 409]
    assert MachineVersion.objects.count() == 1


def test_answers_are_json(publish):
    assert json.loads(publish.api.post("/machines/order/v").content)
