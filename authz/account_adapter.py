"""How django-allauth behaves here: nobody signs up, no mail is sent, our bound on guesses holds.

allauth has the forms and flows of signing in and of changing a password; the pages are ours
(authz/views.py). What it would do otherwise, and why we do not want it:

- count wrong passwords per client address: behind a proxy that is one address for all people;
- count them per host name: a site that answers to two names would allow twice as many;
- look an address up in lower case only, and in a table of further addresses that we do not offer:
  Django's own backend checks passwords.
"""

from typing import Any, ClassVar

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest
from django.utils.http import url_has_allowed_host_and_scheme

from authz import passwords
from authz.models import User
from statebacked_site.frame import tell

MISMATCH = "E-mail and password do not match."  # which of them is wrong is not told
MESSAGES = {
    "account/messages/password_changed.txt": (
        "Your password was changed. Other sessions of yours have ended."
    ),
    "account/messages/password_set.txt": (
        "You have a password now. Other sessions of yours have ended."
    ),
}


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    error_messages: ClassVar[dict[str, str]] = {
        **DefaultAccountAdapter.error_messages,
        "email_password_mismatch": MISMATCH,
        "enter_current_password": "This is not your password.",
        "too_many_login_attempts": (
            "There were too many wrong passwords for this address. Wait a quarter of an hour, or"
            " sign in by a link."
        ),
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        if not passwords.may_guess(credentials["email"]):
            raise self.validation_error("too_many_login_attempts")

    def authenticate(self, request: HttpRequest, **credentials: Any) -> User | None:
        user = super().authenticate(request, **credentials)
        if not isinstance(user, User):
            return None
        passwords.forgive(credentials["email"])
        return user

    def add_message(
        self,
        request: HttpRequest,
        level: int,
        message_template: str | None = None,
        *_args: Any,
        **_options: Any,
    ) -> None:
        text = MESSAGES.get(message_template or "")
        if text is not None:  # that somebody is signed in now, they see
            tell(request, text)

    def is_safe_url(self, url: str) -> bool:
        return is_path_of_site(url)

    def is_ajax(self, request: HttpRequest) -> bool:
        """Pages answer pages: programs have the API."""
        return False


def is_path_of_site(url: str) -> bool:
    """Whether a redirect may lead there: an address with a host is no path, whatever the host."""
    return url.startswith("/") and url_has_allowed_host_and_scheme(url, allowed_hosts=None)
