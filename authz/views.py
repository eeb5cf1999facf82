"""Signing in with a link, and signing out."""

from datetime import UTC, datetime

from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from authz import sign_in_links
from authz.errors import InvalidSignInLink


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
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect(next_path(request))


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("home")


def next_path(request: HttpRequest) -> str:
    """Where the person was going; never another site."""
    path = request.POST.get("next") or request.GET.get("next") or "/"
    if path.startswith("/") and url_has_allowed_host_and_scheme(path, allowed_hosts=None):
        return path
    return "/"
