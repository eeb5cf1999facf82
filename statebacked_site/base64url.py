"""base64url without padding, as in identifiers, tokens and cursors."""

import base64


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """What `encode` was given; raises ValueError for anything else."""
    padding = "=" * (-len(text) % 4)
    return base64.b64decode(text + padding, altchars=b"-_", validate=True)
