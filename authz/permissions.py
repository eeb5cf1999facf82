"""What a request needs to be let through: declared per method, checked in one place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from authz.callers import Caller
from authz.errors import MissingScope, MissingUser

if TYPE_CHECKING:
    from statebacked_site.api import ApiView


@dataclass(frozen=True, slots=True)
class Scoped:
    """Any one of these scopes."""

    any_of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person, whatever their role."""


@dataclass(frozen=True, slots=True)
class Open:
    """Anybody; `because` says what protects the view instead."""

    because: str


Rule = Scoped | SignedIn | Open


def scope(*any_of: str) -> Scoped:
    return Scoped(any_of)


def require(caller: Caller, *any_of: str) -> None:
    """Raise MissingScope unless the caller has at least one of these scopes."""
    if caller.scopes.isdisjoint(any_of):
        raise MissingScope(f"This needs the scope {' or '.join(any_of)}", *any_of)


class HasScope(BasePermission):
    """Applies the view's `rules`. A method without a rule is a bug, not an open door."""

    def has_permission(self, request: Request, view: "ApiView") -> bool:  # type: ignore[override]
        match rule_for(view.rules, str(request.method)):
            case Scoped(any_of=any_of):
                require(view.caller, *any_of)
            case SignedIn():
                if view.caller.user_id is None:
                    raise MissingUser("Only a person's access token may do this")
            case Open():
                pass
        return True


def rule_for(rules: Mapping[str, Rule], method: str) -> Rule:
    return rules["GET" if method == "HEAD" else method]
