"""What the site itself keeps."""

from typing import ClassVar

from django.db import models


class IdempotentAnswer(models.Model):
    """The answer to a write that came with an `Idempotency-Key`, for a day; see idempotency.py."""

    request_sha256 = models.CharField(max_length=64, unique=True)  # caller, method, path and key
    body_sha256 = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)  # null: not answered yet
    content_type = models.CharField(max_length=100, default="")
    content_encrypted = models.BinaryField(default=b"")  # it may be a secret, as of a new key
    created_at = models.BigIntegerField()  # milliseconds since the epoch

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["created_at"], name="idempotent_answer_age")
        ]
