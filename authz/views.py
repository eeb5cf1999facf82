"""Signing in with a link or a password, signing out, a person's own account, and an org's keys."""

from datetime import UTC, datetime
from typing import Any

from allauth.account.utils import perform_login
from allauth.account.views import LoginView, LogoutView, PasswordChangeView, PasswordSetView
from django.conf import settings
from django.contrib.auth.password_validation import password_validators_help_texts
from django.core.exceptions import NON_FIELD_ERRORS
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from authz import keys, scopes, sign_in_links
from authz.account_adapter import MISMATCH, is_path_of_site
from authz.errors import InvalidSignInLink, MissingScope
from authz.forms import SignInForm
from authz.members import Member, member_of, memberships_of
from authz.models import Key, Membership, User
from authz.permissions import require
from authz.serializers import NAME_LENGTH_MAX
from statebacked_site.errors import InvalidParameter
from statebacked_site.frame import SESSION_ORG, org_page, render_page, tell, to_sign_in
from statebacked_site.paging import page_of


class SignInView(LoginView):  # type: ignore[misc]
    """With e-mail and password; says how to get a link without them."""

    template_name = "authz/sign_in.html"

    def form_invalid(self, form: SignInForm) -> HttpResponse:
        guessed_too_often = form.has_error(NON_FIELD_ERRORS, "too_many_login_attempts")
        response: HttpResponse = super().form_invalid(form)
        response.status_code = 429 if guessed_too_often else 422
        return response

    def get_context_data(self, **more: Any) -> dict[str, Any]:
        form: SignInForm = more.get("form") or self.get_form()
        wrong = form.non_field_errors() or ([MISMATCH] if form.errors else [])
        return {
            **super().get_context_data(**more),
            "email": form["login"].value() or "",
            "error": next(iter(wrong), ""),
            "next": next_path(self.request),
            "api_url": f"{settings.PUBLIC_URL}/api",
        }


sign_in = require_http_methods(["GET", "HEAD", "POST"])(SignInView.as_view())
sign_out = require_POST(LogoutView.as_view())


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_link(request: HttpRequest, token: str) -> HttpResponseBase:
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
    response: HttpResponseBase = perform_login(request, user, redirect_url=next_path(request))
    return response


class AccountPage:
    """What both forms for a password share: the page around them."""

    request: HttpRequest
    success_url = reverse_lazy("account")

    def render_to_response(self, context: dict[str, Any], **_options: Any) -> HttpResponse:
        request = self.request
        assert isinstance(request.user, User)
        user = request.user
        status = 422 if context["form"].errors else 200
        shown = {
            "form": context["form"],
            "has_password": user.has_usable_password(),
            "password_rules": password_validators_help_texts(),
            "memberships": memberships_of(user),
        }
        if not shown["memberships"]:
            return render(request, "authz/account_small.html", shown, status=status)
        member = member_of(user, seen_last(request, shown["memberships"]))
        return render_page(
            request, member, "authz/account.html", shown, section="account", status=status
        )


class ChangePassword(AccountPage, PasswordChangeView):  # type: ignore[misc]
    """The old one is asked for; five attempts a minute."""


class SetPassword(AccountPage, PasswordSetView):  # type: ignore[misc]
    """The first one of who signed in by a link."""


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def account(request: HttpRequest) -> HttpResponseBase:
    """Who I am, which orgs I am in, and my password."""
    if not isinstance(request.user, User):
        return to_sign_in(request)
    view = ChangePassword if request.user.has_usable_password() else SetPassword
    response: HttpResponseBase = view.as_view()(request)
    return response


def seen_last(request: HttpRequest, memberships: list[Membership]) -> Membership:
    """The membership in the org that was looked at last; `memberships` is not empty."""
    org = request.session.get(SESSION_ORG)
    return next((m for m in memberships if m.org.public_id == org), memberships[0])


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


def next_path(request: HttpRequest) -> str:
    """Where the person was going; never another site."""
    path = request.POST.get("next") or request.GET.get("next") or "/"
    return path if is_path_of_site(path) else "/"
