"""How code comes to the site: a provisional version or migration, its upload, and its end.

1. `reserve` reserves an id and gives out an address and a secret for one upload.
2. `receive_code` takes the code, once.
3. Who finalizes it reads the code (`uploaded`), checks it, and in the transaction that makes the
   version or migration removes the upload (`take`).

A crash between the steps leaves an upload that expires; code that is refused leaves nothing else
behind, and may be finalized again.
"""

import hmac
from datetime import datetime, timedelta
from typing import NamedTuple

from django.core import signing
from django.urls import reverse

from authz.callers import Caller
from authz.secrets import sha256_of
from machines.errors import TooManyUploads, WrongUploadSecret
from machines.models import CodeUpload, Machine, MachineVersion
from statebacked_site.errors import Conflict, InvalidParameter, NotFound
from statebacked_site.identifiers import new_migration_id, new_secret, new_version_id

UPLOAD_LIFETIME = timedelta(hours=1)
UPLOADS_WAITING_MAX = 100  # per machine
SECRET_PREFIX = "sbup"
SECRET_FIELD = "uploadSecret"


class Kind(NamedTuple):
    """What an upload becomes."""

    name: str
    salt: str  # of its signed ids: those of one kind are nothing to another
    parameter: str  # the signed id's name in the API


VERSION = Kind("version", "machines.provisional-version", "signedMachineVersionId")
MIGRATION = Kind("migration", "machines.provisional-migration", "signedMachineVersionMigrationId")


class Provisional(NamedTuple):
    signed_id: str
    upload_path: str
    upload_fields: dict[str, str]


def reserve_version(caller: Caller, machine: Machine, now: datetime) -> Provisional:
    """Reserve a version of `machine`. Raises TooManyUploads."""
    return _reserve(VERSION, CodeUpload(machine=machine, public_id=new_version_id()), caller, now)


def reserve_migration(
    caller: Caller, from_version: MachineVersion, to_version: MachineVersion, now: datetime
) -> Provisional:
    """Reserve a migration between two versions of a machine. Raises TooManyUploads."""
    assert from_version.machine_id == to_version.machine_id
    upload = CodeUpload(
        machine=from_version.machine,
        public_id=new_migration_id(),
        from_version=from_version,
        to_version=to_version,
    )
    return _reserve(MIGRATION, upload, caller, now)


def waiting_upload(public_id: str, secret: str, now: datetime) -> CodeUpload:
    """The upload whose address and secret these are. Raises NotFound or WrongUploadSecret."""
    upload = CodeUpload.objects.filter(public_id=public_id, expires_at__gt=now).first()
    if upload is None:
        raise NotFound("There is no such upload address, or it is too old")
    if not hmac.compare_digest(sha256_of(secret), upload.sha256_of_secret):
        raise WrongUploadSecret(f"The field {SECRET_FIELD} is not the one that was given")
    return upload


def receive_code(upload: CodeUpload, packed: bytes) -> None:
    """Keep the gzipped code. Each upload address takes code once."""
    unused = CodeUpload.objects.filter(pk=upload.pk, source_gzip=None)
    if unused.update(source_gzip=packed) != 1:
        raise Conflict("This upload address was used already: it takes code once")


def uploaded(kind: Kind, machine: Machine, signed_id: str) -> tuple[CodeUpload, bytes]:
    """The upload that was reserved for this machine under this id, and its gzipped code."""
    upload = _signed_upload(kind, machine, signed_id)
    if upload.source_gzip is None:
        raise InvalidParameter("Its code was not uploaded yet", kind.parameter)
    return upload, bytes(upload.source_gzip)


def take(kind: Kind, upload: CodeUpload) -> None:
    """Remove an upload that becomes what it was for, in the same transaction. Raises Conflict.

    Of two requests at the same moment, one takes the row. It is gone with its machine, too.
    """
    deleted, _ = CodeUpload.objects.filter(pk=upload.pk).delete()
    if not deleted:
        raise _finalized_already(kind)


def _reserve(kind: Kind, upload: CodeUpload, caller: Caller, now: datetime) -> Provisional:
    machine = upload.machine
    machine.uploads.filter(expires_at__lte=now).delete()
    if machine.uploads.count() >= UPLOADS_WAITING_MAX:
        raise TooManyUploads(
            f"{UPLOADS_WAITING_MAX} provisional versions and migrations wait for their code"
        )
    secret = new_secret(SECRET_PREFIX)
    upload.sha256_of_secret = sha256_of(secret)
    upload.created_by_id = caller.user_id
    upload.expires_at = now + UPLOAD_LIFETIME
    upload.save(force_insert=True)
    return Provisional(
        signed_id=signing.dumps([machine.org_id, machine.pk, upload.public_id], salt=kind.salt),
        upload_path=reverse("code-upload", args=[upload.public_id]),
        upload_fields={SECRET_FIELD: secret},
    )


def _signed_upload(kind: Kind, machine: Machine, signed_id: str) -> CodeUpload:
    try:
        org_id, machine_id, public_id = signing.loads(
            signed_id, salt=kind.salt, max_age=UPLOAD_LIFETIME
        )
    except signing.SignatureExpired as exc:
        raise InvalidParameter(
            f"The provisional {kind.name} is too old: create another", kind.parameter
        ) from exc
    except signing.BadSignature as exc:
        raise InvalidParameter(
            f"This is no signed {kind.name} id of this site", kind.parameter
        ) from exc
    if (org_id, machine_id) != (machine.org_id, machine.pk):
        raise NotFound(f"The machine has no such provisional {kind.name}")
    upload = CodeUpload.objects.filter(public_id=public_id).first()
    if upload is None:
        raise _finalized_already(kind)
    return upload


def _finalized_already(kind: Kind) -> Conflict:
    return Conflict(f"This {kind.name} was finalized already, or its machine is gone")
