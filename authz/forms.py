"""Forms that say something else than django-allauth's own."""

from typing import Any

from allauth.account.forms import LoginForm
from django import forms

EMAIL_LENGTH_MAX = 254


class SignInForm(LoginForm):  # type: ignore[misc]
    """E-mail and password. An address that looks like none is as wrong as any other."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["login"] = forms.CharField(max_length=EMAIL_LENGTH_MAX)
