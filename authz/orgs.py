"""Creating orgs."""

from django.db import transaction

from authz.models import Membership, Org, User


@transaction.atomic
def create_org(user: User, name: str, *, allow_anonymous_access: bool = True) -> Org:
    """A new org whose admin is `user`."""
    org = Org.objects.create(name=name, allow_anonymous_access=allow_anonymous_access)
    Membership.objects.create(org=org, user=user, role=Membership.Role.ADMIN)
    return org
