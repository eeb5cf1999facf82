"""How an operation can fail, as its sender is told (engine.md, HTTP outcomes)."""

from typing import ClassVar

from statebacked_site.errors import DomainError


class EngineError(DomainError):
    """An operation that was refused or failed. Only after a 504 may it be in the history."""

    # Counts as one of a delivery's attempts; trouble of the site's own does not.
    counts_as_attempt: ClassVar[bool] = True


class InstanceNotFound(EngineError):
    status = 404
    code = "not-found"


class MachineNotFound(EngineError):
    status = 404
    code = "not-found"


class InvalidSpawn(EngineError):
    """What a persistent instance is to be made of is not there, or makes no sense."""

    status = 400
    code = "invalid-parameter"


class InstanceExists(EngineError):
    status = 409
    code = "conflict"


class InstancePaused(EngineError):
    """Deliveries are held until it resumes."""

    status = 409
    code = "invalid-state"
    counts_as_attempt = False


class InstanceDeleted(EngineError):
    status = 404
    code = "not-found"


class RejectedByAuthorizer(EngineError):
    status = 403
    code = "rejected-by-machine-authorizer"


class MachineThrew(EngineError):
    """Customers' code threw while the step was computed; the instance is as before.

    The text is for admins and logs: others are told a request id only.
    """

    status = 500
    code = "machine-error"

    def __init__(self, message: str, stack: str = "") -> None:
        super().__init__(message)
        self.stack = stack


class MigrationFailed(MachineThrew):
    """The instance is to be upgraded before its next event, and can't be; it is as before."""

    code = "migration-failed"


class MachineOverLimit(EngineError):
    """The step used too much time or memory, and its runner was killed."""

    status = 500
    code = "machine-limit"


class ContextTooLarge(EngineError):
    status = 400
    code = "context-too-large"


class MailboxFull(EngineError):
    status = 429
    code = "too-many-events"
    retry_after_s = 1
    counts_as_attempt = False


class Unavailable(EngineError):
    """The site can't take the operation now; it was not applied."""

    status = 503
    code = "unavailable"
    retry_after_s = 1
    counts_as_attempt = False


class NotReached(Unavailable):
    """There is no way to the node that it was to be sent on to: clients hear `Unavailable`."""


class NotOwner(EngineError):
    """Another node runs this instance's services: said between nodes, never to clients."""

    status = 421
    code = "not-owner"
    counts_as_attempt = False


class OutcomeUnknown(EngineError):
    status = 504
    code = "outcome-unknown"
    counts_as_attempt = False


class UnsupportedEffect(EngineError):
    """The step asks for something that this site can't do."""

    status = 500
    code = "unsupported-effect"


def unavailable(error: Exception | None) -> EngineError:
    """What to answer where no runner could be had."""
    if isinstance(error, EngineError):
        return error
    return Unavailable(str(error) if error is not None else "no runner is available")
