"""/api/orgs and /api/keys."""

from typing import ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from authz import keys, orgs
from authz.authentication import TokenOutsideOrgs
from authz.models import Key, Membership, Org, User
from authz.permissions import Rule, SignedIn, scope
from authz.serializers import (
    CreatedKeyJson,
    CreatedOrg,
    CreateKey,
    CreateOrg,
    KeyJson,
    KeysPage,
    OrgJson,
    OrgsPage,
)
from statebacked_site.api import ApiView
from statebacked_site.openapi import CURSOR, operation
from statebacked_site.paging import Page, page_of


class OrgsView(ApiView):
    authentication_classes = [TokenOutsideOrgs]  # noqa: RUF012
    rules: ClassVar[dict[str, Rule]] = {"GET": scope("org.read"), "POST": SignedIn()}

    @operation("List the orgs that you are in", {200: OrgsPage}, parameters=[CURSOR])
    def get(self, request: Request) -> Response:
        if self.caller.user_id is None:
            page = _org_of_key(self.caller.org_pk)
        else:
            memberships = Membership.objects.select_related("org")
            page = page_of(
                memberships.filter(user_id=self.caller.user_id),
                "id",
                request.query_params.get("cursor"),
            )
        return Response(page.body("orgs", lambda membership: OrgJson(membership).data))

    @operation("Create an org, with you as its admin", {200: CreatedOrg}, request=CreateOrg)
    def post(self, request: Request) -> Response:
        assert isinstance(request.user, User)
        org = orgs.create_org(request.user, **self.given(CreateOrg))
        return Response({"id": org.public_id})


class KeysView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {
        "GET": scope("tokens.admin"),
        "POST": scope("org.keys.write"),
    }

    @operation("List the org's keys", {200: KeysPage}, parameters=[CURSOR])
    def get(self, request: Request) -> Response:
        org_keys = Key.objects.defer("secret_encrypted").filter(org_id=self.caller.org_pk)
        page = page_of(org_keys, "id", request.query_params.get("cursor"))
        return Response(page.body("keys", lambda key: KeyJson(key).data))

    @operation("Create a key", {200: CreatedKeyJson}, request=CreateKey)
    def post(self, request: Request) -> Response:
        given = self.given(CreateKey)
        scopes = keys.scopes_for(given.get("use"), given.get("scopes") or [])
        created = keys.create_key(self.caller, given["name"], scopes)
        return Response({"id": created.key.public_id, "key": created.secret})


class KeyView(ApiView):
    rules: ClassVar[dict[str, Rule]] = {"DELETE": scope("org.keys.write")}

    @operation("Delete a key; its tokens stop working at once", {204: None})
    def delete(self, request: Request, key: str) -> Response:
        keys.delete_key(self.caller, key)
        return Response(status=204)


def _org_of_key(org_id: int) -> Page:
    """A key is in its own org, and no member of it: it sees what a reader would."""
    org = Org.objects.get(pk=org_id)
    return Page([Membership(org=org, role=Membership.Role.READ)], None)
