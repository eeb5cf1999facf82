"""Failures of what people do with instances; those of events are in instances/engine/errors.py."""

from statebacked_site.errors import NotFound


class InstanceNotFound(NotFound):
    """There is no such instance, or it was deleted while the request was on its way."""
