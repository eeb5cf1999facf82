"""Failures of what people do with instances; those of events are in instances/engine/errors.py."""

from statebacked_site.errors import DomainError, NotFound


class InstanceNotFound(NotFound):
    """There is no such instance, or it was deleted while the request was on its way."""


class NoMigrationPath(DomainError):
    """No chain of the machine's migrations leads from the one version to the other."""

    status = 400
    code = "no-migration-path"
