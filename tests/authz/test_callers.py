import base64
import json
import time
from datetime import timedelta

import pytest
from django.conf import LazySettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwk, jws

from authz import access_tokens, scopes
from authz.callers import Caller, identify
from authz.errors import Forbidden, InvalidToken, MissingOrg, MissingScope, MissingToken, SpecifyOrg
from authz.models import AccessToken, Key, Membership
from statebacked_site.errors import DomainError, InvalidParameter
from tests.factories import (
    SigningKey,
    make_access_token,
    make_key,
    make_member,
    make_org,
    make_user,
)

pytestmark = pytest.mark.django_db

NOW = 1_800_000_000.0


def identify_token(token: str, org: str | None = None, act: str | None = None) -> Caller:
    return identify(f"Bearer {token}", org, act, time.time())


@pytest.fixture
def signing_key() -> SigningKey:
    return make_key(make_org(), "events.write", "state.read")


# --- Tokens signed by a key ---------------------------------------------------------------


def test_token_of_a_key_has_the_keys_org_and_scopes(signing_key):
    caller = identify_token(signing_key.sign(act={"sub": "ann", "role": "buyer"}))

    assert caller.org_id == signing_key.key.org_id
    assert caller.org_public_id == signing_key.key.org.public_id
    assert caller.scopes == {"events.write", "state.read"}
    assert caller.auth_context == {"sub": "ann", "role": "buyer"}
    assert caller.key_public_id == signing_key.key.public_id
    assert caller.user_id is None


def test_expiry_of_the_token_is_the_callers(signing_key):
    exp = time.time() + 1234.5

    caller = identify_token(signing_key.sign(exp=exp))

    assert caller.expires_at == exp


def test_token_is_worth_nothing_from_its_expiry_on(signing_key):
    authorization = f"Bearer {signing_key.sign(exp=NOW)}"

    assert identify(authorization, None, None, NOW - 0.01)
    with pytest.raises(InvalidToken, match="expired"):
        identify(authorization, None, None, NOW)


def test_top_level_sub_is_the_fallback_for_act_sub(signing_key):
    assert identify_token(signing_key.sign(sub="top")).auth_context == {"sub": "end-user"}
    assert identify_token(signing_key.sign(sub="top", act={"a": 1})).auth_context == {
        "a": 1,
        "sub": "top",
    }
    assert identify_token(signing_key.sign(sub="top", act=None)).auth_context == {"sub": "top"}
    assert identify_token(signing_key.sign(act=None)).auth_context == {}


def test_claim_of_the_platform_is_stripped(signing_key):
    sender = {"machineName": "m", "machineInstanceName": "i"}

    caller = identify_token(signing_key.sign(act={"sub": "ann", "stateBackedSender": sender}))

    assert caller.auth_context == {"sub": "ann"}


@pytest.mark.parametrize(
    "audience",
    [
        "https://api.statebacked.dev/",
        "https://api.statebacked.dev",
        "https://sb.example.com",
        "https://sb.example.com/",
        "https://sb.example.com/api",
        ["https://elsewhere.example", "https://sb.example.com"],
    ],
)
def test_audience_is_the_published_one_or_this_site(signing_key, settings: LazySettings, audience):
    settings.PUBLIC_URL = "https://sb.example.com"

    assert identify_token(signing_key.sign(aud=audience))


@pytest.mark.parametrize(
    "audience", [None, "", "https://elsewhere.example", 5, [], [5], {"a": 1}, "https://sb"]
)
def test_other_audiences_are_refused(signing_key, audience):
    with pytest.raises(InvalidToken, match="audience"):
        identify_token(signing_key.sign(aud=audience))


@pytest.mark.parametrize("exp", [None, 0, -1, 1.5, "9999999999", True, [1], {}])
def test_expiry_that_is_past_or_no_number_is_refused(signing_key, exp):
    with pytest.raises(InvalidToken):
        identify_token(signing_key.sign(exp=exp))


@pytest.mark.parametrize("exp", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 5000])
def test_expiry_that_is_no_json_number_is_refused(signing_key, exp):
    payload = f'{{"aud": "https://api.statebacked.dev/", "exp": {exp}}}'.encode()

    with pytest.raises(InvalidToken):
        identify_token(signing_key.sign_bytes(payload))


def test_very_late_expiry_is_bounded(signing_key):
    payload = b'{"aud": "https://api.statebacked.dev/", "exp": 1' + b"0" * 400 + b"}"

    assert identify_token(signing_key.sign_bytes(payload)).expires_at == 253_402_300_799.0


def test_token_that_is_not_valid_yet_is_refused(signing_key):
    with pytest.raises(InvalidToken, match="nbf"):
        identify_token(signing_key.sign(nbf=time.time() + 3600))
    assert identify_token(signing_key.sign(nbf=time.time() + 5))  # the signer's clock is ahead


@pytest.mark.parametrize("act", ["ann", 1, [], True])
def test_act_that_is_no_object_is_refused(signing_key, act):
    with pytest.raises(InvalidToken, match="act"):
        identify_token(signing_key.sign(act=act))


def test_act_that_is_too_deep_or_too_large_is_refused(signing_key):
    deep: dict[str, object] = {}
    for _ in range(40):
        deep = {"a": deep}

    with pytest.raises(InvalidToken, match="nested"):
        identify_token(signing_key.sign(act=deep))
    with pytest.raises(InvalidToken, match="larger"):
        identify_token(signing_key.sign(act={"a": "x" * 9000}))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no json",
        b"[]",
        b'"text"',
        b"null",
        b"[" * 9000,
        b'{"a":' * 1500 + b"1" + b"}" * 1500,
        b'{"act": {"a": "\\ud800"}}',
        b"\xff\xfe",
    ],
)
def test_signed_nonsense_is_refused(signing_key, payload):
    with pytest.raises(InvalidToken):
        identify_token(signing_key.sign_bytes(payload))


def test_signature_of_another_key_is_refused(signing_key):
    other = make_key(signing_key.key.org)
    forged = SigningKey(signing_key.key, other.secret)

    with pytest.raises(InvalidToken, match="signature"):
        identify_token(forged.sign())


def test_changed_payload_is_refused(signing_key):
    header, payload, signature = signing_key.sign().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["act"] = {"sub": "root"}
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()

    with pytest.raises(InvalidToken, match="signature"):
        identify_token(f"{header}.{changed}.{signature}")


def unsigned(header: object, signature: str = "") -> str:
    parts = [json.dumps(header), json.dumps({"aud": "https://api.statebacked.dev/", "exp": 9e9})]
    encoded = [base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, signature])


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, "HS384", "RS256", ["HS256"], 5])
def test_every_algorithm_but_hs256_is_refused(signing_key, alg):
    token = unsigned({"alg": alg, "kid": signing_key.key.public_id})

    with pytest.raises(InvalidToken):
        identify_token(token)
    with pytest.raises(InvalidToken):
        identify_token(token + "AAAA")


def test_token_signed_with_another_hmac_is_refused(signing_key):
    with pytest.raises(InvalidToken, match="HS256"):
        identify_token(signing_key.sign({"alg": "HS512"}))


def test_asymmetric_token_is_refused(signing_key):
    private = jwk.RSAKey.generate_key(2048)
    header = {"alg": "RS256", "kid": signing_key.key.public_id}
    token = jws.serialize_compact(header, b'{"exp": 9e9}', private, algorithms=["RS256"])

    with pytest.raises(InvalidToken):
        identify_token(token)


@pytest.mark.parametrize("kid", [None, "", "sbk_", "sbk_unknown", "org_x", "sbk_\0", "x" * 999, 5])
def test_unknown_key_is_refused(signing_key, kid):
    with pytest.raises(InvalidToken):
        identify_token(unsigned({"alg": "HS256", "kid": kid}, "AAAA"))


@pytest.mark.parametrize(
    "header",
    [
        [],
        "text",
        {},
        {"alg": "HS256", "kid": "sbk_x", "crit": ["exp"]},
        {"alg": "HS256", "kid": "sbk_x", "b64": False, "crit": ["b64"]},
    ],
)
def test_odd_header_is_refused(header):
    with pytest.raises(InvalidToken):
        identify_token(unsigned(header, "AAAA"))


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer a.b",
        "Bearer ....",
        "Bearer a.b.c.d",
        "Bearer a b",
        "Bearer " + "[" * 50,
        "Bearer \0",
        "Bearer é.é.é",
        "Bearer " + "a" * 20_000,
        "Bearer " + "YTph" * 400 + ".e30.AAAA",
        "Bearer " + base64.b64encode(b"[" * 700).decode() + ".e30.AAAA",
        "Bearer sbat_",
        "Bearer sbat_unknown",
    ],
)
def test_malformed_authorization_is_refused(authorization):
    with pytest.raises(InvalidToken):
        identify(authorization, None, None, NOW)


@pytest.mark.parametrize("authorization", [None, ""])
def test_no_token_is_refused(authorization):
    with pytest.raises(MissingToken):
        identify(authorization, None, None, NOW)


@given(
    token=st.one_of(
        st.text(max_size=200),
        st.from_regex(r"[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}"),
        st.builds(
            lambda header, rest: base64.urlsafe_b64encode(header).decode() + rest,
            st.one_of(
                st.binary(max_size=80),
                st.recursive(
                    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
                    lambda inner: (
                        st.lists(inner, max_size=3)
                        | st.dictionaries(st.sampled_from(["alg", "kid", "typ", "b64"]), inner)
                    ),
                ).map(lambda value: json.dumps(value).encode()),
            ),
            st.sampled_from([".e30.AAAA", "..", ".e30.", "."]),
        ),
    )
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_gets_anything_but_a_refusal(token):
    with pytest.raises(Forbidden):
        identify(f"Bearer {token}", None, None, NOW)


def test_deleted_key_stops_its_tokens(signing_key):
    token = signing_key.sign()
    Key.objects.all().delete()

    with pytest.raises(InvalidToken, match="deleted"):
        identify_token(token)


def test_org_header_must_name_the_keys_org(signing_key):
    token = signing_key.sign()

    assert identify_token(token, org=signing_key.key.org.public_id)
    with pytest.raises(MissingOrg):
        identify_token(token, org=make_org().public_id)


def test_scope_that_is_no_more_known_is_dropped():
    org = make_org()
    key = make_key(org)
    key.key.scopes = ["org-keys.write", "state.read", "no.such"]
    key.key.save(update_fields=["scopes"])

    assert identify_token(key.sign()).scopes == {"org.keys.write", "state.read"}


# --- Access tokens ------------------------------------------------------------------------


@pytest.mark.parametrize("role", Membership.Role)
def test_access_token_has_the_scopes_of_the_role(role):
    org = make_org()
    user = make_member(org, role)

    caller = identify_token(make_access_token(user))

    assert caller.org_id == org.pk
    assert caller.user_id == user.pk
    assert caller.scopes == scopes.OF_ROLE[role]
    assert caller.auth_context == {"sub": user.public_id}
    assert caller.key_public_id is None


def test_only_the_hash_of_an_access_token_is_stored():
    token = make_access_token(make_member(make_org()))

    row = AccessToken.objects.values().get()

    assert token.startswith("sbat_")
    assert token not in str(row)


def test_person_in_several_orgs_names_one():
    org, other = make_org(), make_org()
    user = make_member(org)
    Membership.objects.create(org=other, user=user, role=Membership.Role.READ)
    token = make_access_token(user)

    with pytest.raises(SpecifyOrg):
        identify_token(token)
    assert identify_token(token, org=other.public_id).org_id == other.pk
    assert identify_token(token, org=other.public_id).scopes == scopes.READ


@pytest.mark.parametrize("header", ["org_unknown", "nonsense", "org_\0", "", " "])
def test_org_that_is_not_theirs_is_refused(header):
    token = make_access_token(make_member(make_org()))

    if not header:
        assert identify_token(token, org=header)  # as if it were not there
    else:
        with pytest.raises(MissingOrg):
            identify_token(token, org=header)


def test_another_orgs_id_is_refused():
    with pytest.raises(MissingOrg):
        identify_token(make_access_token(make_member(make_org())), org=make_org().public_id)


def test_person_without_an_org_is_refused_unless_none_is_needed():
    token = make_access_token(make_user())

    with pytest.raises(MissingOrg):
        identify_token(token)
    caller = identify(f"Bearer {token}", None, None, time.time(), org_required=False)
    assert caller.org_id is None
    assert caller.scopes == {"org.read"}


def test_token_for_one_org_works_in_no_other():
    org, other = make_org(), make_org()
    user = make_member(org)
    Membership.objects.create(org=other, user=user, role=Membership.Role.ADMIN)
    token = make_access_token(user, org)

    assert identify_token(token).org_id == org.pk
    with pytest.raises(MissingOrg):
        identify_token(token, org=other.public_id)


def test_expired_revoked_and_inactive_tokens_are_refused():
    user = make_member(make_org())
    expired = make_access_token(user, hours=-1)
    revoked = make_access_token(user)
    AccessToken.objects.order_by("-id").first().delete()

    for token in (expired, revoked):
        with pytest.raises(InvalidToken):
            identify_token(token)
    good = make_access_token(user)
    user.is_active = False
    user.save(update_fields=["is_active"])
    with pytest.raises(InvalidToken):
        identify_token(good)


def test_member_who_left_the_org_is_refused():
    user = make_member(make_org())
    token = make_access_token(user)
    user.memberships.all().delete()

    with pytest.raises(MissingOrg):
        identify_token(token)


def test_issue_takes_the_lifetime():
    user = make_member(make_org())

    token = access_tokens.issue(user, None, "ci", timedelta(days=3))

    expires_in = identify_token(token).expires_at - time.time()
    assert abs(expires_in - 3 * 86400) < 60


# --- Acting as somebody else --------------------------------------------------------------


def test_admin_acts_with_the_given_auth_context():
    token = make_access_token(make_member(make_org()))

    caller = identify_token(token, act='{"sub": "ann", "stateBackedSender": {}}')

    assert caller.auth_context == {"sub": "ann"}
    assert "instances.admin" in caller.scopes


def test_key_with_admin_scope_acts_too():
    key = make_key(make_org(), "instances.admin")

    assert identify_token(key.sign(), act='{"sub": "bob"}').auth_context == {"sub": "bob"}


def test_act_header_is_ignored_where_no_org_is_needed():
    user = make_member(make_org())
    token = make_access_token(user)

    caller = identify(f"Bearer {token}", None, '{"sub": "ann"}', time.time(), org_required=False)

    assert caller.user_id == user.pk


@pytest.mark.parametrize("role", [Membership.Role.WRITE, Membership.Role.READ])
def test_acting_needs_admin_rights(role):
    token = make_access_token(make_member(make_org(), role))

    with pytest.raises(MissingScope):
        identify_token(token, act='{"sub": "ann"}')


@pytest.mark.parametrize(
    "act",
    [
        "no json",
        "[]",
        '"ann"',
        "null",
        "1",
        "[" * 5000,
        '{"a":' * 50 + "1" + "}" * 50,
        '{"a": NaN}',
        '{"a": "' + "x" * 9000 + '"}',
        '{"a": "\\ud800"}',
        "{",
    ],
)
def test_bad_act_header_is_named(act):
    token = make_access_token(make_member(make_org()))

    with pytest.raises(InvalidParameter) as refused:
        identify_token(token, act=act)
    assert refused.value.parameter == "x-statebacked-act"


@pytest.mark.parametrize(
    "encoded",
    ['{"sub": "é"}', '{"sub": "é"}'.encode().decode("latin-1"), '{"sub": "\\u00e9"}'],
)
def test_letters_in_the_act_header_survive_either_encoding(encoded):
    token = make_access_token(make_member(make_org()))

    assert identify_token(token, act=encoded).auth_context == {"sub": "é"}


def test_refusals_carry_a_challenge():
    assert MissingToken("x").headers() == {"WWW-Authenticate": "Bearer"}
    assert InvalidToken("x").headers() == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    error: DomainError = MissingScope("x")
    assert error.headers() == {}
