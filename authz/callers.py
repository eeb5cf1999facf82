"""Who sends a request, in which org, with which scopes, and on whose behalf.

`identify` is the one place that decides it, for the API views and for the event path alike.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from authz import access_tokens, scopes
from authz.errors import (
    InvalidToken,
    MissingOrg,
    MissingScope,
    MissingToken,
    SpecifyOrg,
)
from authz.models import AccessToken, Key, Membership
from authz.secrets import decrypt, sha256_of
from statebacked_site import base64url
from statebacked_site.errors import InvalidParameter
from statebacked_site.json_text import MalformedJson, parse_json, write_json

# What @statebacked/token always writes, whichever site the token is for.
PUBLISHED_AUDIENCE = "https://api.statebacked.dev/"

TOKEN_BYTES_MAX = 16_384
TOKEN_HEADER_BYTES_MAX = 1_024
AUTH_CONTEXT_BYTES_MAX = 8_192
AUTH_CONTEXT_DEPTH_MAX = 32

# Clocks of signers may be ahead of ours; `exp` gets no such grace.
NOT_BEFORE_LEEWAY_S = 30

# The latest time that the rest of the system can hold: the end of the year 9999.
LATEST_S = 253_402_300_799

ACT_HEADER = "x-statebacked-act"
ORG_HEADER = "x-statebacked-org-id"

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]+) *", re.IGNORECASE)
_KEY_ID = re.compile(r"sbk_[A-Za-z0-9_-]{1,28}")
_ORG_ID = re.compile(r"org_[A-Za-z0-9_-]{1,28}")

# Where events between instances carry their sender; only the platform may say it.
SENDER_CLAIM = "stateBackedSender"
SCHEDULE_CLAIM = "stateBackedSchedule"
OWN_CLAIMS = frozenset({SENDER_CLAIM, SCHEDULE_CLAIM})  # what only the site itself may say


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of a token. `auth_context` is what machine authorizers are told."""

    org_id: int | None  # None only where no org is needed: a person lists or creates orgs
    org_public_id: str | None
    scopes: frozenset[str]
    auth_context: dict[str, Any]
    user_id: int | None  # the person, if the token is a person's
    key_public_id: str | None  # the key, if a key signed it
    expires_at: float  # seconds since the epoch; the token is worth nothing from then on

    @property
    def org_pk(self) -> int:
        """`org_id`, where the caller is known to be in an org."""
        assert self.org_id is not None, "this needs an org, and its view did not require one"
        return self.org_id


def identify(
    authorization: str | None,
    org_header: str | None,
    act_header: str | None,
    now: float,
    *,
    org_required: bool = True,
) -> Caller:
    """The caller that the `Authorization`, org and act headers of a request stand for.

    `now` is in seconds since the epoch. A result may be kept until `expires_at`, unless the key or
    token goes. Raises Forbidden (403) for every token that is not good, SpecifyOrg (400) if the
    person is in several orgs and none is named, InvalidParameter (400) for a bad act header.
    With `org_required=False` a person's token is good without an org, whatever the header says.
    """
    token = _bearer_token(authorization)
    if token.startswith(f"{access_tokens.PREFIX}_"):
        caller = _person(token, org_header or None, now, org_required)
    else:
        caller = _signed(token, org_header or None, now)
    # Outside of an org there is nobody to act as; published clients send the header all the same.
    return _acting_as(caller, act_header) if act_header and org_required else caller


def _bearer_token(authorization: str | None) -> str:
    if not authorization:
        raise MissingToken("This needs a token: send it as `Authorization: Bearer …`")
    if len(authorization) > TOKEN_BYTES_MAX:
        raise InvalidToken(f"The token is longer than {TOKEN_BYTES_MAX} bytes")
    match = _BEARER.fullmatch(authorization)
    if match is None:
        raise InvalidToken("The Authorization header is not of the form `Bearer <token>`")
    return match[1]


# --- Access tokens ------------------------------------------------------------------------


def _person(token: str, org_header: str | None, now: float, org_required: bool) -> Caller:
    row = (
        AccessToken.objects.select_related("user")
        .filter(
            sha256=sha256_of(token),
            expires_at__gt=datetime.fromtimestamp(now, UTC),
            user__is_active=True,
        )
        .first()
    )
    if row is None:
        raise InvalidToken("The access token is unknown, revoked or expired")
    membership = _membership(row, org_header) if org_required else None
    return Caller(
        org_id=membership.org_id if membership else None,
        org_public_id=membership.org.public_id if membership else None,
        scopes=scopes.OF_ROLE[Membership.Role(membership.role)]
        if membership
        else scopes.OUTSIDE_ORGS,
        auth_context={"sub": row.user.public_id},
        user_id=row.user_id,
        key_public_id=None,
        expires_at=row.expires_at.timestamp(),
    )


def _membership(token: AccessToken, org_header: str | None) -> Membership:
    """The membership that a request acts under: of the org that it names, or the only one."""
    memberships = Membership.objects.select_related("org").filter(user_id=token.user_id)
    if token.org_id is not None:
        memberships = memberships.filter(org_id=token.org_id)
    if org_header is not None:
        if _ORG_ID.fullmatch(org_header) is None:
            raise MissingOrg(f"The {ORG_HEADER} header holds no org id")
        memberships = memberships.filter(org__public_id=org_header)
    found = list(memberships[:2])
    if not found:
        raise MissingOrg("You are in no such org" if org_header else "You are in no org yet")
    if len(found) > 1:
        raise SpecifyOrg(f"You are in several orgs: name one in the {ORG_HEADER} header")
    return found[0]


# --- Tokens signed by a key ---------------------------------------------------------------


def _signed(token: str, org_header: str | None, now: float) -> Caller:
    key = _key_of(token)
    claims = _verified_claims(token, key)
    _check_audience(claims)
    expires_at = _check_times(claims, now)
    if org_header is not None and org_header != key.org.public_id:
        raise MissingOrg("The token's key belongs to another org than the one that is named")
    return Caller(
        org_id=key.org_id,
        org_public_id=key.org.public_id,
        scopes=scopes.canonical(key.scopes) & scopes.ALL,
        auth_context=_auth_context(claims),
        user_id=None,
        key_public_id=key.public_id,
        expires_at=expires_at,
    )


def _key_of(token: str) -> Key:
    """The key that the token's header names. Nothing in the token is verified yet."""
    header_part, _, rest = token.partition(".")
    if rest.count(".") != 1 or len(header_part) > TOKEN_HEADER_BYTES_MAX:
        raise InvalidToken("The token is no JWT")
    try:
        header = parse_json(base64url.decode(header_part))
    except ValueError as exc:
        raise InvalidToken("The token's header can't be read") from exc
    # Only what our keys sign: no other algorithm, no unsigned token, no critical extension.
    if not isinstance(header, dict) or header.get("alg") != "HS256" or "crit" in header:
        raise InvalidToken("The token is not signed with HS256")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or _KEY_ID.fullmatch(key_id) is None:
        raise InvalidToken("The token's header names no key (`kid`)")
    key = Key.objects.select_related("org").filter(public_id=key_id).first()
    if key is None:
        raise InvalidToken("The token's key is unknown or was deleted")
    return key


def _verified_claims(token: str, key: Key) -> dict[str, Any]:
    secret = OctKey.import_key(decrypt(bytes(key.secret_encrypted)))
    try:
        claims = parse_json(jws.deserialize_compact(token, secret, algorithms=["HS256"]).payload)
    except JoseError as exc:
        raise InvalidToken("The token's signature is wrong") from exc
    except MalformedJson as exc:
        raise InvalidToken("The token's claims can't be read") from exc
    if not isinstance(claims, dict):
        raise InvalidToken("The token's claims are no object")
    return claims


def _check_audience(claims: dict[str, Any]) -> None:
    given = claims.get("aud")
    audiences = given if isinstance(given, list) else [given]
    site = settings.PUBLIC_URL.rstrip("/")
    ours = {PUBLISHED_AUDIENCE.rstrip("/"), site, f"{site}/api"}
    if not any(isinstance(one, str) and one.rstrip("/") in ours for one in audiences):
        raise InvalidToken(
            f"The token is for another audience (`aud`) than {PUBLISHED_AUDIENCE} or {site}"
        )


def _check_times(claims: dict[str, Any], now: float) -> float:
    """When the token expires; raises InvalidToken if it has, says not when, or is not valid yet."""
    expires_at = _moment(claims, "exp")
    if expires_at is None:
        raise InvalidToken("The token says not when it expires (`exp`)")
    if expires_at <= now:
        raise InvalidToken("The token is expired")
    not_before = _moment(claims, "nbf")
    if not_before is not None and not_before > now + NOT_BEFORE_LEEWAY_S:
        raise InvalidToken("The token is not valid yet (`nbf`)")
    return expires_at


def _moment(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"The token's `{name}` is no number")
    # Python's own integers have no bound, and those of a token may be absurd.
    return float(min(max(value, 0), LATEST_S))


def _auth_context(claims: dict[str, Any]) -> dict[str, Any]:
    """The end user's claims: `act`, with the token's own `sub` if it names nobody."""
    act = claims.get("act")
    if act is None:
        act = {}
    if not isinstance(act, dict):
        raise InvalidToken("The token's `act` is no object")
    if "sub" not in act and isinstance(claims.get("sub"), str):
        act = {**act, "sub": claims["sub"]}
    complaint = _complaint_about(act)
    if complaint is not None:
        raise InvalidToken(f"The token's `act` {complaint}")
    return _without_sender(act)


# --- Acting as somebody else --------------------------------------------------------------


def _acting_as(caller: Caller, act_header: str) -> Caller:
    if "instances.admin" not in caller.scopes:
        raise MissingScope(f"The {ACT_HEADER} header needs the scope instances.admin")
    if len(act_header) > AUTH_CONTEXT_BYTES_MAX:
        raise InvalidParameter(
            f"{ACT_HEADER} is longer than {AUTH_CONTEXT_BYTES_MAX} bytes", ACT_HEADER
        )
    try:
        act = parse_json(_header_text(act_header))
    except MalformedJson as exc:
        raise InvalidParameter(f"{ACT_HEADER} is not valid JSON: {exc}", ACT_HEADER) from exc
    if not isinstance(act, dict):
        raise InvalidParameter(f"{ACT_HEADER} is no JSON object", ACT_HEADER)
    complaint = _complaint_about(act)
    if complaint is not None:
        raise InvalidParameter(f"{ACT_HEADER} {complaint}", ACT_HEADER)
    return replace(caller, auth_context=_without_sender(act))


def _header_text(value: str) -> str:
    """Browsers send a header's letters as Latin-1, most other programs as UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _complaint_about(act: dict[str, Any]) -> str | None:
    """What keeps `act` from being handed to authorizers, or None."""
    if _is_deeper_than(AUTH_CONTEXT_DEPTH_MAX, act):
        return f"is nested deeper than {AUTH_CONTEXT_DEPTH_MAX}"
    if len(write_json(act)) > AUTH_CONTEXT_BYTES_MAX:
        return f"is larger than {AUTH_CONTEXT_BYTES_MAX} bytes"
    return None


def _is_deeper_than(depth: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper_than(depth - 1, child) for child in children)


def _without_sender(act: dict[str, Any]) -> dict[str, Any]:
    return {name: claim for name, claim in act.items() if name not in OWN_CLAIMS}
