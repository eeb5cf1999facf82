"""DRF's side of `identify`: `request.auth` is the Caller."""

import time
from typing import ClassVar

from django.contrib.auth.models import AnonymousUser
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from authz.callers import ACT_HEADER, ORG_HEADER, Caller, identify
from authz.models import User


class TokenAuthentication(BaseAuthentication):
    """A bearer token, for one org. Raises for every request without a good one."""

    org_required: ClassVar[bool] = True

    def authenticate(self, request: Request) -> tuple[User | AnonymousUser, Caller]:
        caller = identify(
            request.headers.get("authorization"),
            request.headers.get(ORG_HEADER),
            request.headers.get(ACT_HEADER),
            time.time(),
            org_required=self.org_required,
        )
        if caller.user_id is None:
            return AnonymousUser(), caller
        return User.objects.get(pk=caller.user_id), caller


class TokenOutsideOrgs(TokenAuthentication):
    """For views that are about a person's orgs, not inside one of them."""

    org_required = False
