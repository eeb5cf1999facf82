"""What the commands of this machine use to reach the site: an org, a person and a token of it."""

from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.core.management.base import CommandError
from django.db import OperationalError
from django.db.models import Q

from authz.models import Membership, Org, User
from statebacked_site.running import running_url


@dataclass(frozen=True)
class LocalAccess:
    """A fresh access token for one org, and where it is accepted."""

    api_url: str
    org: Org
    user: User
    access_token: str


def grant(org_name: str | None, *, token_name: str, lifetime: timedelta) -> LocalAccess:
    """An access token of an admin of the org with this id or name.

    Without a name it is the first org's admin, and the token works in each org of that person.

    Raises CommandError if there is no such org.
    """
    from authz import access_tokens

    org = _find_org(org_name)
    user = _find_admin(org)
    return LocalAccess(
        api_url=f"{site_url()}/api",
        org=org,
        user=user,
        access_token=access_tokens.issue(user, org if org_name else None, token_name, lifetime),
    )


def site_url() -> str:
    """Where the site is, or will be when it is started as it was configured."""
    return running_url(settings.DATA_DIR) or settings.PUBLIC_URL


def first_admin() -> User:
    """An admin of the first org. Raises CommandError if there is none yet."""
    return _find_admin(_find_org(None))


def require_running_site() -> None:
    """Raises CommandError unless a server uses this data directory."""
    if running_url(settings.DATA_DIR) is None:
        raise CommandError(
            f"State Backed is not running with the data in {settings.DATA_DIR}.\n"
            "Start it in another terminal: python3 manage.py up"
        )


def _find_org(name: str | None) -> Org:
    try:
        orgs = list(
            Org.objects.filter(Q(public_id=name) | Q(name=name)).order_by("id")[:2]
            if name
            else Org.objects.order_by("id")[:1]
        )
    except OperationalError:  # The database is empty.
        orgs = []
    if len(orgs) > 1:
        raise CommandError(f"More than one org is named {name}: use the id.")
    if not orgs and name:
        raise CommandError(f"There is no org with the id or name {name}.")
    if not orgs:
        raise CommandError("There is no org yet. Start the site once: python3 manage.py up")
    return orgs[0]


def _find_admin(org: Org) -> User:
    membership = (
        Membership.objects.filter(org=org, role=Membership.Role.ADMIN, user__is_active=True)
        .select_related("user")
        .order_by("id")
        .first()
    )
    if membership is None:
        raise CommandError(f"{org.public_id} has no admin who could use a token.")
    return membership.user
