"""Public identifiers: a prefix and 16 random bytes in base64url, as in `org_1k2j…`."""

import base64
import re
import secrets

SLUG_PATTERN = r"^[A-Za-z0-9_-]{1,128}\Z"
SLUG = re.compile(SLUG_PATTERN)
IDENTIFIER_LENGTH_MAX = 32


def new_identifier(prefix: str) -> str:
    """A fresh identifier such as `ver_Qm3…`; `prefix` is org, usr, ver, mig, sch or sbk."""
    return f"{prefix}_{_random_text(16)}"


def new_secret(prefix: str) -> str:
    """A fresh secret of 256 random bits with a recognisable prefix, such as `sbsec_…`."""
    return f"{prefix}_{_random_text(32)}"


def _random_text(size: int) -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(size)).rstrip(b"=").decode()


def new_org_id() -> str:
    return new_identifier("org")


def new_user_id() -> str:
    return new_identifier("usr")


def new_key_id() -> str:
    return new_identifier("sbk")


def new_schedule_id() -> str:
    return new_identifier("sch")


def new_version_id() -> str:
    return new_identifier("ver")


def new_migration_id() -> str:
    return new_identifier("mig")
