"""The proof that somebody who deletes data means it: a flag, and the name once more as an HMAC."""

import hashlib
import hmac

from statebacked_site import base64url
from statebacked_site.errors import InvalidParameter


def name_hmac(machine_slug: str, name: str) -> str:
    """base64url, without padding, of HMAC-SHA256 over `name` with the machine's name as the key."""
    digest = hmac.digest(machine_slug.encode(), name.encode(), hashlib.sha256)
    return base64url.encode(digest)


def check_confirmation(
    *, confirmed: bool, given_hmac: str, machine_slug: str, name: str, parameter: str
) -> None:
    """Raises InvalidParameter that names the wrong one: the flag, or the HMAC `parameter`."""
    if not confirmed:
        flag = "dangerDataWillBeDeletedForever"
        raise InvalidParameter(f"{flag}: must be true, since the data will be gone", flag)
    expected = name_hmac(machine_slug, name)
    if not hmac.compare_digest(given_hmac.rstrip("=").encode(), expected.encode()):
        raise InvalidParameter(f"{parameter}: is not the HMAC of the name {name!r}", parameter)
