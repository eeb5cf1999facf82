"""The bound on guesses of passwords: per e-mail address, whoever makes them."""

from datetime import timedelta

from django.core.cache import cache

from authz.secrets import sha256_of

GUESSES_MAX = 10  # for one e-mail address, within GUESSES_WINDOW
GUESSES_WINDOW = timedelta(minutes=15)


def may_guess(email: str) -> bool:
    """Count a guess; false after ten wrong ones within a quarter of an hour."""
    counter = _counter(email)
    cache.add(counter, 0, GUESSES_WINDOW.total_seconds())
    return cache.incr(counter) <= GUESSES_MAX


def forgive(email: str) -> None:
    """Whoever knows the password has made the wrong guesses, too."""
    cache.delete(_counter(email))


def _counter(email: str) -> str:
    # A hash, since an address of anybody's making is no key of a cache.
    return f"password-guesses:{sha256_of(email.lower())}"
