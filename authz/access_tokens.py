"""Access tokens: opaque, a person's own, with all scopes of their role in an org."""

from datetime import UTC, datetime, timedelta

from django.db import transaction

from authz.models import AccessToken, Org, User
from authz.secrets import sha256_of
from statebacked_site.identifiers import new_secret

PREFIX = "sbat"


def issue(user: User, org: Org | None, name: str, lifetime: timedelta) -> str:
    """A new token of `user`, shown this once. Without `org` it works in all of their orgs."""
    now = datetime.now(UTC)
    # Commands issue one each time: what is expired would pile up.
    AccessToken.objects.filter(user=user, expires_at__lt=now).delete()
    token = new_secret(PREFIX)
    AccessToken.objects.create(
        user=user,
        org=org,
        name=name,
        sha256=sha256_of(token),
        expires_at=now + lifetime,
    )
    return token


@transaction.atomic
def revoke(token: AccessToken) -> None:
    """The token stops working at once, also where it was verified before."""
    token.delete()
    transaction.on_commit(_forget_verified_tokens)


def _forget_verified_tokens() -> None:
    from instances.engine import door

    door.token_revoked()
