"""The first start of a site: somebody to sign in as, and an org to work in."""

from datetime import UTC, datetime
from typing import NamedTuple

from django.db import transaction

from authz import sign_in_links
from authz.models import Membership, Org, User
from authz.orgs import create_org

FIRST_USER_EMAIL = "admin@localhost"
FIRST_ORG_NAME = "My org"


class FirstRun(NamedTuple):
    user: User
    org: Org
    sign_in_path: str | None  # to be shown until the person has signed in once
    created: bool


@transaction.atomic
def ensure_first_org() -> FirstRun:
    """The site's first admin and their org; creates both on an empty site. Safe to call again."""
    membership = (
        Membership.objects.select_related("user", "org")
        .filter(role=Membership.Role.ADMIN, user__is_active=True)
        .order_by("id")
        .first()
    )
    if membership is not None:
        user, org, created = membership.user, membership.org, False
    else:
        user, _ = User.objects.get_or_create(email=FIRST_USER_EMAIL)
        org, created = create_org(user, FIRST_ORG_NAME), True
    sign_in_path = None
    if user.last_login is None:
        sign_in_path = sign_in_links.create_link(user, datetime.now(UTC))
    return FirstRun(user, org, sign_in_path, created)
