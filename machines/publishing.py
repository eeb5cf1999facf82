"""How code becomes a version or a migration: it is loaded in the sandbox, and recorded.

The code is loaded before the transaction: it is a customer's, and may take seconds. Code that is
refused leaves nothing behind.
"""

from __future__ import annotations

from typing import NamedTuple

from django.db import transaction

from authz.callers import Caller
from machines import uploads
from machines.checked_code import CheckedCode, check_packed, check_source
from machines.models import (
    Machine,
    MachineVersion,
    MachineVersionMigration,
    MigrationCode,
    VersionCode,
)
from statebacked_site.identifiers import new_migration_id, new_version_id


class PublishedVersion(NamedTuple):
    version: MachineVersion
    warnings: list[str]


class PublishedMigration(NamedTuple):
    migration: MachineVersionMigration
    warnings: list[str]


def finalize_version(
    caller: Caller, machine: Machine, signed_id: str, *, client_info: str, make_current: bool
) -> PublishedVersion:
    """Make a version of the uploaded code. Raises InvalidBundle, and nothing is made."""
    from instances.engine import door

    upload, packed = uploads.uploaded(uploads.VERSION, machine, signed_id)
    checked = check_packed(packed, door.check_bundle)
    with transaction.atomic():
        uploads.take(uploads.VERSION, upload)
        return record_version(
            caller,
            machine,
            checked,
            public_id=upload.public_id,
            client_info=client_info,
            make_current=make_current,
        )


def finalize_migration(caller: Caller, machine: Machine, signed_id: str) -> PublishedMigration:
    """Make a migration of the uploaded code. Raises InvalidBundle, and nothing is made."""
    from instances.engine import door

    upload, packed = uploads.uploaded(uploads.MIGRATION, machine, signed_id)
    assert upload.from_version_id is not None
    assert upload.to_version_id is not None
    checked = check_packed(packed, door.check_migration)
    with transaction.atomic():
        uploads.take(uploads.MIGRATION, upload)
        assert upload.from_version is not None
        assert upload.to_version is not None
        return record_migration(
            caller, upload.from_version, upload.to_version, checked, public_id=upload.public_id
        )


def check_code(source: bytes) -> CheckedCode:
    """Load `source`, the ES module of a version, in the sandbox.

    Raises InvalidBundle, TooLarge, Unavailable.
    """
    from instances.engine import door

    return check_source(source, door.check_bundle)


def check_migration_code(source: bytes) -> CheckedCode:
    """The same for a migration."""
    from instances.engine import door

    return check_source(source, door.check_migration)


@transaction.atomic
def record_migration(
    caller: Caller,
    from_version: MachineVersion,
    to_version: MachineVersion,
    checked: CheckedCode,
    *,
    public_id: str | None = None,
) -> PublishedMigration:
    """Make a migration between two versions of a machine of code that was checked."""
    assert from_version.machine_id == to_version.machine_id
    migration = MachineVersionMigration.objects.create(
        machine_id=from_version.machine_id,
        public_id=public_id or new_migration_id(),
        from_version=from_version,
        to_version=to_version,
        created_by_id=caller.user_id,
    )
    MigrationCode.objects.create(migration=migration, **checked.columns())
    return PublishedMigration(migration, checked.warnings())


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
    VersionCode.objects.create(version=version, **checked.columns())
    if make_current:
        Machine.objects.filter(pk=machine.pk).update(current_version=version)
    transaction.on_commit(lambda: _announce(machine.pk))
    transaction.on_commit(lambda: _draw_ahead(version.pk))
    return PublishedVersion(version, checked.warnings())


def make_current(machine: Machine, version: MachineVersion) -> None:
    """New instances of `machine` get `version` from now on; those that run keep theirs."""
    assert version.machine_id == machine.pk
    with transaction.atomic():
        Machine.objects.filter(pk=machine.pk).update(current_version=version)
        transaction.on_commit(lambda: _announce(machine.pk))


def _announce(machine_id: int) -> None:
    from instances.engine import door

    door.version_published(machine_id)


def _draw_ahead(version_id: int) -> None:
    """So that nobody waits for the picture. Only in a server: a command is over too soon."""
    from instances.engine import door
    from machines import diagrams

    if door.is_ready():
        diagrams.prepare(version_id)
