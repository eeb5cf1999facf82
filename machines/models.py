"""Machines, their immutable versions, and the migrations between those."""

from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models

from authz.models import Org, User
from statebacked_site.identifiers import (
    IDENTIFIER_LENGTH_MAX,
    SLUG_PATTERN,
    new_migration_id,
    new_version_id,
)

validate_slug = RegexValidator(SLUG_PATTERN)


class Machine(models.Model):
    """A logical machine of an org: a slug, and the version that new instances get."""

    org = models.ForeignKey(Org, on_delete=models.CASCADE, related_name="machines")
    slug = models.CharField(max_length=128, validators=[validate_slug])
    current_version = models.ForeignKey(
        "MachineVersion", on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["org", "slug"], name="machine_slug_unique_in_org")
        ]

    def __str__(self) -> str:
        return self.slug


class MachineVersion(models.Model):
    """One immutable code bundle of a machine. The code itself lies in `VersionCode`."""

    machine = models.ForeignKey(Machine, on_delete=models.CASCADE, related_name="versions")
    public_id = models.CharField(
        max_length=IDENTIFIER_LENGTH_MAX, unique=True, default=new_version_id
    )
    client_info = models.CharField(max_length=1000, blank=True)
    xstate_major = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True)

    def __str__(self) -> str:
        return self.public_id


class MachineVersionMigration(models.Model):
    """Immutable code that maps states and context from one version of a machine to another.

    There may be several between two versions: the newest is used.
    """

    machine = models.ForeignKey(Machine, on_delete=models.CASCADE, related_name="migrations")
    public_id = models.CharField(
        max_length=IDENTIFIER_LENGTH_MAX, unique=True, default=new_migration_id
    )
    from_version = models.ForeignKey(MachineVersion, on_delete=models.CASCADE, related_name="+")
    to_version = models.ForeignKey(MachineVersion, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True)

    def __str__(self) -> str:
        return self.public_id


class Code(models.Model):
    """Published code: as it was uploaded, and as the runner evaluates it."""

    source_gzip = models.BinaryField()  # the uploaded ES module
    source_sha256 = models.CharField(max_length=64)
    source_bytes = models.PositiveIntegerField()
    commonjs_gzip = models.BinaryField()  # made from it by esbuild when it was finalized
    externals = models.JSONField()  # specifiers that the platform provides, e.g. ["npm:xstate@5"]

    class Meta:
        abstract = True


class VersionCode(Code):
    version = models.OneToOneField(
        MachineVersion, on_delete=models.CASCADE, primary_key=True, related_name="code"
    )


class MigrationCode(Code):
    migration = models.OneToOneField(
        MachineVersionMigration, on_delete=models.CASCADE, primary_key=True, related_name="code"
    )


class VersionDiagram(models.Model):
    """The definition of a version and its drawing, made when they are first looked at.

    Everything here can be made again from the code. Where the code can't be described, `problem`
    says why and the rest is empty.
    """

    version = models.OneToOneField(
        MachineVersion, on_delete=models.CASCADE, primary_key=True, related_name="diagram"
    )
    definition = models.BinaryField(default=b"")  # JSON of machines.flow.Graph
    problem = models.CharField(max_length=500, blank=True)
    drawing_key = models.CharField(max_length=64, blank=True)  # changes with the way of drawing
    drawing = models.BinaryField(default=b"")  # msgpack of machines.flow.Drawing
    thumb = models.JSONField(default=dict)  # machines.thumbs.Thumb: a few boxes and lines


class CodeUpload(models.Model):
    """A provisional version or migration: waits for its code, then for being finalized.

    The upload address carries a secret, works once and expires; finalizing turns the row into a
    `MachineVersion` or `MachineVersionMigration` with the same public id, or leaves it for another
    try if the code is bad.
    """

    machine = models.ForeignKey(Machine, on_delete=models.CASCADE, related_name="uploads")
    # Of a migration; both null for a version.
    from_version = models.ForeignKey(
        MachineVersion, on_delete=models.CASCADE, null=True, blank=True, related_name="+"
    )
    to_version = models.ForeignKey(
        MachineVersion, on_delete=models.CASCADE, null=True, blank=True, related_name="+"
    )
    public_id = models.CharField(
        max_length=IDENTIFIER_LENGTH_MAX, unique=True, default=new_version_id
    )
    sha256_of_secret = models.CharField(max_length=64)
    source_gzip = models.BinaryField(null=True, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
