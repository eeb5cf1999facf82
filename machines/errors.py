"""Failures of publishing."""

from statebacked_site.errors import DomainError, InvalidParameter


class InvalidBundle(InvalidParameter):
    """The uploaded code can't become a version. The message says what its author should change."""


class WrongUploadSecret(DomainError):
    """The upload's fields are not those that came with its address."""

    status = 403
    code = "wrong-upload-secret"


class TooManyUploads(DomainError):
    """More provisional versions wait for code than a machine may have."""

    status = 429
    code = "too-many-uploads"
    retry_after_s = 60
