"""The theme cookie, for browsers without JavaScript; static/site/js/theme.js sets the same."""

from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from authz.views import next_path

COOKIE = "theme"
LIFETIME = timedelta(days=365)


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Back to where the person was, in the theme that they chose; anything else is the system's."""
    response = redirect(next_path(request))
    chosen = request.POST.get("theme")
    if chosen in ("light", "dark"):
        response.set_cookie(COOKIE, chosen, max_age=LIFETIME, samesite="Lax")
    else:
        response.delete_cookie(COOKIE, samesite="Lax")
    return response
