"""How code becomes a version: a provisional version, its upload, and finalizing it.

1. `provision` reserves an id and gives out an address and a secret for one upload.
2. `receive_code` takes the code, once.
3. `finalize` loads the code in the sandbox and makes the version.

A crash between the steps leaves an upload that expires; a bad bundle leaves nothing else behind.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from django.core import signing
from django.db import transaction
from django.urls import reverse

from authz.callers import Caller
from authz.secrets import sha256_of
from instances.runtime.errors import InvalidBundle as BundleRefused
from instances.runtime.errors import RunnerUnavailable
from machines import gzip_code
from machines.errors import InvalidBundle, TooManyUploads, WrongUploadSecret
from machines.models import CodeUpload, Machine, MachineVersion, VersionCode
from statebacked_site.errors import Conflict, InvalidParameter, NotFound, Unavailable
from statebacked_site.identifiers import new_secret, new_version_id

if TYPE_CHECKING:
    from instances.runtime.bundle import BundleInfo

UPLOAD_LIFETIME = timedelta(hours=1)
UPLOADS_WAITING_MAX = 100  # per machine
SECRET_PREFIX = "sbup"
SECRET_FIELD = "uploadSecret"
SIGNED_ID_PARAMETER = "signedMachineVersionId"

_SALT = "machines.provisional-version"


class ProvisionalVersion(NamedTuple):
    signed_id: str
    upload_path: str
    upload_fields: dict[str, str]


class PublishedVersion(NamedTuple):
    version: MachineVersion
    warnings: list[str]


class CheckedCode(NamedTuple):
    """Code that has loaded in the sandbox, and what a version of it holds."""

    source: bytes
    packed: bytes  # `source` gzipped
    bundle: BundleInfo


def provision(caller: Caller, machine: Machine, now: datetime) -> ProvisionalVersion:
    """Reserve a version of `machine`. Raises TooManyUploads."""
    machine.uploads.filter(expires_at__lte=now).delete()
    if machine.uploads.count() >= UPLOADS_WAITING_MAX:
        raise TooManyUploads(f"{UPLOADS_WAITING_MAX} provisional versions wait for their code")
    secret = new_secret(SECRET_PREFIX)
    upload = CodeUpload.objects.create(
        machine=machine,
        sha256_of_secret=sha256_of(secret),
        created_by_id=caller.user_id,
        expires_at=now + UPLOAD_LIFETIME,
    )
    return ProvisionalVersion(
        signed_id=signing.dumps([machine.org_id, machine.pk, upload.public_id], salt=_SALT),
        upload_path=reverse("code-upload", args=[upload.public_id]),
        upload_fields={SECRET_FIELD: secret},
    )


def waiting_upload(public_id: str, secret: str, now: datetime) -> CodeUpload:
    """The upload whose address and secret these are. Raises NotFound or WrongUploadSecret."""
    upload = CodeUpload.objects.filter(public_id=public_id, expires_at__gt=now).first()
    if upload is None:
        raise NotFound("There is no such upload address, or it is too old")
    if not hmac.compare_digest(sha256_of(secret), upload.sha256_of_secret):
        raise WrongUploadSecret(f"The field {SECRET_FIELD} is not the one that was given")
    return upload


def receive_code(upload: CodeUpload, packed: bytes) -> None:
    """Keep the gzipped code of a provisional version. Each upload address takes code once."""
    unused = CodeUpload.objects.filter(pk=upload.pk, source_gzip=None)
    if unused.update(source_gzip=packed) != 1:
        raise Conflict("This upload address was used already: it takes code once")


def finalize(
    caller: Caller, machine: Machine, signed_id: str, *, client_info: str, make_current: bool
) -> PublishedVersion:
    """Make a version of the uploaded code. Raises InvalidBundle, and nothing is made.

    The code is loaded before the transaction: it is a customer's, and may take seconds.
    """
    upload = _signed_upload(machine, signed_id)
    if upload.source_gzip is None:
        raise InvalidParameter("Its code was not uploaded yet", SIGNED_ID_PARAMETER)
    packed = bytes(upload.source_gzip)
    checked = _checked(gzip_code.unpack(packed), packed)
    with transaction.atomic():
        # Of two requests at the same moment, one takes the row. It is gone with its machine, too.
        deleted, _ = CodeUpload.objects.filter(pk=upload.pk).delete()
        if not deleted:
            raise _finalized_already()
        return record_version(
            caller,
            machine,
            checked,
            public_id=upload.public_id,
            client_info=client_info,
            make_current=make_current,
        )


def check_code(source: bytes) -> CheckedCode:
    """Load `source`, an ES module, in the sandbox. Raises InvalidBundle, TooLarge, Unavailable."""
    return _checked(source, gzip_code.pack(source))


@transaction.atomic
def record_version(
    caller: Caller,
    machine: Machine,
    checked: CheckedCode,
    *,
    client_info: str,
    make_current: bool,
    public_id: str | None = None,
) -> PublishedVersion:
    """Make a version of code that was checked."""
    version = MachineVersion.objects.create(
        machine=machine,
        public_id=public_id or new_version_id(),
        client_info=client_info,
        xstate_major=checked.bundle.xstate_major,
        created_by_id=caller.user_id,
    )
    VersionCode.objects.create(
        version=version,
        source_gzip=checked.packed,
        source_sha256=hashlib.sha256(checked.source).hexdigest(),
        source_bytes=len(checked.source),
        commonjs_gzip=gzip.compress(checked.bundle.commonjs.encode(), mtime=0),
        externals=list(checked.bundle.externals),
    )
    if make_current:
        Machine.objects.filter(pk=machine.pk).update(current_version=version)
    transaction.on_commit(lambda: _announce(machine.pk))
    transaction.on_commit(lambda: _draw_ahead(version.pk))
    return PublishedVersion(version, list(checked.bundle.warnings))


def make_current(machine: Machine, version: MachineVersion) -> None:
    """New instances of `machine` get `version` from now on; those that run keep theirs."""
    assert version.machine_id == machine.pk
    with transaction.atomic():
        Machine.objects.filter(pk=machine.pk).update(current_version=version)
        transaction.on_commit(lambda: _announce(machine.pk))


def _signed_upload(machine: Machine, signed_id: str) -> CodeUpload:
    """The upload that `provision` has signed for this machine."""
    try:
        org_id, machine_id, public_id = signing.loads(
            signed_id, salt=_SALT, max_age=UPLOAD_LIFETIME
        )
    except signing.SignatureExpired as exc:
        raise InvalidParameter(
            "The provisional version is too old: create another", SIGNED_ID_PARAMETER
        ) from exc
    except signing.BadSignature as exc:
        raise InvalidParameter(
            "This is no signed version id of this site", SIGNED_ID_PARAMETER
        ) from exc
    if (org_id, machine_id) != (machine.org_id, machine.pk):
        raise NotFound("The machine has no such provisional version")
    upload = CodeUpload.objects.filter(public_id=public_id).first()
    if upload is None:
        raise _finalized_already()
    return upload


def _finalized_already() -> Conflict:
    return Conflict("This version was finalized already, or its machine is gone")


def _checked(source: bytes, packed: bytes) -> CheckedCode:
    """What loading the code in the sandbox has shown."""
    from instances.engine import door

    try:
        return CheckedCode(source, packed, door.check_bundle(source))
    except BundleRefused as exc:
        raise InvalidBundle(str(exc)) from exc
    except RunnerUnavailable as exc:
        raise Unavailable(str(exc)) from exc


def _announce(machine_id: int) -> None:
    from instances.engine import door

    door.version_published(machine_id)


def _draw_ahead(version_id: int) -> None:
    """So that nobody waits for the picture. Only in a server: a command is over too soon."""
    from instances.engine import door
    from machines import diagrams

    if door.is_ready():
        diagrams.prepare(version_id)
