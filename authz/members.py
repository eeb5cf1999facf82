"""A signed-in person in one of their orgs: who looks at a page, and what they may do there."""

import math
from dataclasses import dataclass

from authz import scopes
from authz.callers import Caller
from authz.models import Membership, Org, User
from statebacked_site.errors import NotFound

ROLES_UPWARD = (Membership.Role.READ, Membership.Role.WRITE, Membership.Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Member:
    """`caller` is the person as the domain functions know callers, with all scopes of the role."""

    user: User
    org: Org
    role: Membership.Role
    caller: Caller

    def may(self, scope: str) -> bool:
        return scope in self.caller.scopes

    def refusal(self, scope: str) -> str:
        """Why the person may not do what needs `scope`, as a sentence; empty if they may."""
        if self.may(scope):
            return ""
        enough = next(role for role in ROLES_UPWARD if scope in scopes.OF_ROLE[role])
        return (
            f"This needs the role {enough.value}, and yours is {self.role.value}."
            f" An admin of {self.org.name} can change that."
        )


def get_member(user: User, org_public_id: str) -> Member:
    """Raises NotFound for an org that is not there and for one of other people alike."""
    membership = (
        Membership.objects.select_related("org")
        .filter(user_id=user.pk, org__public_id=org_public_id)
        .first()
        if "\0" not in org_public_id
        else None
    )
    if membership is None:
        raise NotFound("There is no such org, or you are not in it")
    return member_of(user, membership)


def member_of(user: User, membership: Membership) -> Member:
    role = Membership.Role(membership.role)
    caller = Caller(
        org_id=membership.org_id,
        org_public_id=membership.org.public_id,
        scopes=scopes.OF_ROLE[role],
        auth_context={"sub": user.public_id},
        user_id=user.pk,
        key_public_id=None,
        expires_at=math.inf,
    )
    return Member(user, membership.org, role, caller)


def memberships_of(user: User) -> list[Membership]:
    """The person's memberships, the oldest first."""
    return list(Membership.objects.select_related("org").filter(user_id=user.pk).order_by("id"))
