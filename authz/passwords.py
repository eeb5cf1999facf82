"""Signing in with e-mail and password, with a bound on guesses."""

from datetime import timedelta

from django.contrib.auth import authenticate
from django.core.cache import cache
from django.http import HttpRequest

from authz.errors import TooManyGuesses, WrongPassword
from authz.models import User
from authz.secrets import sha256_of

GUESSES_MAX = 10  # for one e-mail address, within GUESSES_WINDOW
GUESSES_WINDOW = timedelta(minutes=15)


def check(request: HttpRequest, email: str, password: str) -> User:
    """The active person with this address and password.

    Raises WrongPassword, the same for an unknown address, and TooManyGuesses after ten wrong ones
    within a quarter of an hour, whoever made them.
    """
    # A hash, since an address of anybody's making is no key of a cache.
    counter = f"password-guesses:{sha256_of(email.lower())}"
    cache.add(counter, 0, GUESSES_WINDOW.total_seconds())
    if cache.incr(counter) > GUESSES_MAX:
        raise TooManyGuesses(
            "There were too many wrong passwords for this address. Wait a quarter of an hour, or"
            " sign in by a link."
        )
    user = None if "\0" in email else authenticate(request, email=email, password=password)
    if not isinstance(user, User):
        raise WrongPassword("E-mail and password do not match.")
    cache.delete(counter)
    return user
