"""Why a caller is turned away. All are 403: the published client maps no 401."""

from typing import ClassVar

from statebacked_site.errors import DomainError


class Forbidden(DomainError):
    status = 403


class InvalidToken(Forbidden):
    """No token, or one that is malformed, expired, revoked or not signed by a key of ours."""

    code = "missing-user"
    challenge: ClassVar[str] = 'Bearer error="invalid_token"'

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "WWW-Authenticate": self.challenge}


class MissingToken(InvalidToken):
    challenge = "Bearer"


class MissingUser(Forbidden):
    """Only a person may do this, and the token is not a person's."""

    code = "missing-user"


class MissingScope(Forbidden):
    code = "missing-scope"

    def __init__(self, message: str, *any_of: str) -> None:
        super().__init__(message)
        self.any_of = any_of  # scopes of which one would do, if it is known


class MissingOrg(Forbidden):
    """The person is in no org, or not in the one that the request names."""

    code = "missing-org"


class SpecifyOrg(DomainError):
    """The person is in several orgs, and the request names none."""

    code = "specify-org"


class InvalidSignInLink(DomainError):
    """The link is unknown, was used before or is too old."""

    status = 410
    code = "invalid-sign-in-link"
