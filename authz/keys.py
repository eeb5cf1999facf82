"""Keys: what customers sign their end users' tokens with."""

from typing import NamedTuple

from django.db import transaction

from authz import scopes as known_scopes
from authz.callers import Caller
from authz.errors import MissingScope
from authz.models import Key
from authz.secrets import encrypt
from statebacked_site.errors import InvalidParameter, NotFound
from statebacked_site.identifiers import new_secret

SECRET_PREFIX = "sbsec"


class CreatedKey(NamedTuple):
    key: Key
    secret: str  # shown this once


def scopes_for(use: str | None, scopes: list[str]) -> frozenset[str]:
    """The scopes of a new key. Explicit ones win: the published CLI always adds a `use`."""
    if scopes:
        wanted = known_scopes.canonical(scopes)
        unknown = sorted(wanted - known_scopes.ALL)
        if unknown:
            raise InvalidParameter(f"There is no scope {', '.join(unknown)}", "scopes")
        return wanted
    if use is None:
        raise InvalidParameter("Give the key `scopes`, or a `use`", "scopes")
    return known_scopes.OF_USE[use]


def create_key(caller: Caller, name: str, scopes: frozenset[str]) -> CreatedKey:
    """A new key of the caller's org. It gets no scope that the caller has not."""
    beyond = sorted(scopes - caller.scopes)
    if beyond:
        raise MissingScope(f"You can't give a key what you have not: {', '.join(beyond)}")
    secret = new_secret(SECRET_PREFIX)
    key = Key.objects.create(
        org_id=caller.org_pk,
        name=name,
        secret_encrypted=encrypt(secret),
        scopes=sorted(scopes),
        created_by_id=caller.user_id,
    )
    return CreatedKey(key, secret)


@transaction.atomic
def delete_key(caller: Caller, public_id: str) -> None:
    """Delete a key of the caller's org; its tokens stop working at once."""
    deleted, _ = Key.objects.filter(org_id=caller.org_pk, public_id=public_id).delete()
    if not deleted:
        raise NotFound("There is no such key")
    transaction.on_commit(lambda: _forget_tokens_of(public_id))


def _forget_tokens_of(public_id: str) -> None:
    from instances.engine import door

    door.key_deleted(public_id)
