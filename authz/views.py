"""Signing in with a link or a password, signing out, a person's own account, and an org's keys."""

from datetime import UTC, datetime

from django import forms
from django.conf import settings
from django.contrib.auth import login, logout, update_session_auth_hash
from django.contrib.auth.forms import SetPasswordForm
from django.contrib.auth.password_validation import password_validators_help_texts
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from authz import keys, passwords, scopes, sign_in_links
from authz.errors import InvalidSignInLink, MissingScope, TooManyGuesses, WrongPassword
from authz.members import Member, member_of, memberships_of
from authz.models import Key, User
from authz.permissions import require
from authz.serializers import NAME_LENGTH_MAX
from statebacked_site.errors import InvalidParameter
from statebacked_site.frame import SESSION_ORG, org_page, render_page, tell, to_sign_in
from statebacked_site.paging import page_of

BACKEND = "django.contrib.auth.backends.ModelBackend"


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """With e-mail and password; says how to get a link without them."""
    if request.user.is_authenticated:
        return redirect(next_path(request))
    if request.method != "POST":
        return _sign_in_page(request)
    email = request.POST.get("email", "").strip()
    try:
        user = passwords.check(request, email, request.POST.get("password", ""))
    except (WrongPassword, TooManyGuesses) as exc:
        return _sign_in_page(request, email=email, error=str(exc), status=exc.status)
    login(request, user, backend=BACKEND)
    return redirect(next_path(request))


def _sign_in_page(
    request: HttpRequest, *, email: str = "", error: str = "", status: int = 200
) -> HttpResponse:
    context = {
        "email": email,
        "error": error,
        "next": next_path(request),
        "api_url": f"{settings.PUBLIC_URL}/api",
    }
    return render(request, "authz/sign_in.html", context, status=status)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_link(request: HttpRequest, token: str) -> HttpResponse:
    """GET asks for confirmation and POST signs in: a program that previews links uses none up."""
    now = datetime.now(UTC)
    try:
        if request.method != "POST":
            link = sign_in_links.find(token, now)
            context = {"email": link.user.email, "next": next_path(request)}
            return render(request, "authz/confirm_sign_in.html", context)
        user = sign_in_links.use(token, now)
    except InvalidSignInLink as exc:
        return render(request, "authz/invalid_link.html", {"message": exc}, status=exc.status)
    login(request, user, backend=BACKEND)
    return redirect(next_path(request))


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("home")


class PasswordForm(SetPasswordForm):  # type: ignore[type-arg]
    """A new password, and the old one if there is one."""

    old_password = forms.CharField(strip=False, required=False)

    def clean_old_password(self) -> str:
        given: str = self.cleaned_data["old_password"]
        if has_password(self.user) and not self.user.check_password(given):
            raise forms.ValidationError("This is not your password.")
        return given


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    """Who I am, which orgs I am in, and my password."""
    if not isinstance(request.user, User):
        return to_sign_in(request)
    user = request.user
    form = PasswordForm(user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        # Whoever else is signed in as this person is not any more.
        update_session_auth_hash(request, user)
        tell(request, "Your password was changed. Other sessions of yours have ended.")
        return redirect("account")
    context = {
        "form": form,
        "has_password": has_password(user),
        "password_rules": password_validators_help_texts(),
    }
    status = 422 if form.errors else 200
    memberships = memberships_of(user)
    if not memberships:
        return render(request, "authz/account_small.html", context, status=status)
    seen_last = request.session.get(SESSION_ORG)
    shown = next((m for m in memberships if m.org.public_id == seen_last), memberships[0])
    context["memberships"] = memberships
    return render_page(
        request,
        member_of(user, shown),
        "authz/account.html",
        context,
        section="account",
        status=status,
    )


# --- Keys ---------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@org_page
def keys_page(request: HttpRequest, member: Member) -> HttpResponse:
    """The org's keys. POST creates one, and shows its secret in the answer, this once."""
    if request.method != "POST":
        return _keys_page(request, member, {"is_adding": request.GET.get("new") == "1"})
    require(member.caller, "org.keys.write")
    name = request.POST.get("name", "").strip()
    use = request.POST.get("use", "")
    chosen = request.POST.getlist("scopes")
    form = {"is_adding": True, "name": name, "use": use, "chosen": chosen}
    if not name or len(name) > NAME_LENGTH_MAX or "\0" in name:
        error = f"A name has 1 to {NAME_LENGTH_MAX} characters."
        return _keys_page(request, member, {**form, "name_error": error}, 422)
    try:
        wanted = keys.scopes_for(
            use if use in scopes.OF_USE else None, chosen if use == "custom" else []
        )
        created = keys.create_key(member.caller, name, wanted)
    except InvalidParameter:
        error = "Choose at least one scope, or one of the purposes."
        return _keys_page(request, member, {**form, "scopes_error": error}, 422)
    except MissingScope as exc:
        return _keys_page(request, member, {**form, "scopes_error": f"{exc}."}, exc.status)
    return _keys_page(request, member, {"created": created})


def _keys_page(
    request: HttpRequest, member: Member, context: dict[str, object], status: int = 200
) -> HttpResponse:
    may_list = member.may("tokens.admin")
    shown: dict[str, object] = {"refusal": member.refusal("org.keys.write"), "may_list": may_list}
    if may_list:
        listed = Key.objects.defer("secret_encrypted").filter(org=member.org)
        page = page_of(listed.select_related("created_by"), "-id", request.GET.get("after"))
        deleting = request.GET.get("delete", "")
        shown |= {
            "keys": page.items,
            "cursor": page.cursor,
            "deleting": next((key for key in page.items if key.public_id == deleting), None),
            "uses": {use: sorted(of_use) for use, of_use in scopes.OF_USE.items()},
            "all_scopes": sorted(member.caller.scopes),
        }
    return render_page(
        request, member, "authz/keys.html", shown | context, section="keys", status=status
    )


@require_POST
@org_page
def delete_key(request: HttpRequest, member: Member, key: str) -> HttpResponse:
    require(member.caller, "org.keys.write")
    keys.delete_key(member.caller, key)
    tell(request, "The key was deleted. Its tokens have stopped working.")
    return redirect("keys-page", member.org.public_id)


def has_password(user: User) -> bool:
    # Django takes an empty hash for one of a password.
    return bool(user.password) and user.has_usable_password()


def next_path(request: HttpRequest) -> str:
    """Where the person was going; never another site."""
    path = request.POST.get("next") or request.GET.get("next") or "/"
    if path.startswith("/") and url_has_allowed_host_and_scheme(path, allowed_hosts=None):
        return path
    return "/"
