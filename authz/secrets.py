"""Secrets at rest: hashed where it is enough to recognise one, encrypted where we must use it."""

import base64
import functools
import hashlib

from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


def sha256_of(secret: str) -> str:
    """The hash by which a secret of ours is looked up. It has 256 random bits, so no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


def encrypt(secret: str) -> bytes:
    """`secret`, readable again by this site only."""
    return _cipher().encrypt(secret.encode())


def decrypt(encrypted: bytes) -> str:
    """What `encrypt` was given; raises cryptography's InvalidToken after a change of SECRET_KEY."""
    return _cipher().decrypt(encrypted).decode()


def _cipher() -> MultiFernet:
    return _cipher_for((settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@functools.lru_cache(maxsize=4)
def _cipher_for(secret_keys: tuple[str, ...]) -> MultiFernet:
    # The first key encrypts; the site's earlier ones still decrypt.
    return MultiFernet([_fernet(secret_key) for secret_key in secret_keys])


def _fernet(secret_key: str) -> Fernet:
    derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"statebacked key secrets")
    return Fernet(base64.urlsafe_b64encode(derive.derive(secret_key.encode())))
