"""Links that sign one person in, once: for the first start, and for whoever has no password."""

from datetime import datetime, timedelta

from django.db import transaction
from django.urls import reverse

from authz.errors import InvalidSignInLink
from authz.models import SignInLink, User
from authz.secrets import sha256_of
from statebacked_site.identifiers import new_secret

LIFETIME = timedelta(hours=24)
PREFIX = "signin"


def create_link(user: User, now: datetime) -> str:
    """The path of a new link for `user`; an earlier one that was not used stops working."""
    SignInLink.objects.filter(user=user, used_at=None).delete()
    token = new_secret(PREFIX)
    SignInLink.objects.create(user=user, sha256=sha256_of(token), expires_at=now + LIFETIME)
    return reverse("sign-in-link", args=[token])


def find(token: str, now: datetime) -> SignInLink:
    """The link, if it can still be used; raises InvalidSignInLink."""
    link = SignInLink.objects.select_related("user").filter(sha256=sha256_of(token)).first()
    if link is None or not link.user.is_active:
        raise InvalidSignInLink("This sign-in link is not valid.")
    if link.used_at is not None:
        raise InvalidSignInLink("This sign-in link was used already: each works once.")
    if link.expires_at <= now:
        raise InvalidSignInLink("This sign-in link is too old: each works for 24 hours.")
    return link


@transaction.atomic
def use(token: str, now: datetime) -> User:
    """Use the link up, and return whom it signs in; raises InvalidSignInLink."""
    link = find(token, now)
    # Of two requests at the same moment, one hits the row.
    if SignInLink.objects.filter(pk=link.pk, used_at=None).update(used_at=now) != 1:
        raise InvalidSignInLink("This sign-in link was used already: each works once.")
    return link.user
