"""What the engine works on: operations, activations, and the words for how an operation ended."""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from instances.engine.errors import EngineError

if TYPE_CHECKING:
    from instances.engine.runners import RunnerLink

SETTLED = "[]"  # the `children` of an instance with no live ephemeral service


class Kind(IntEnum):
    """Why an instance takes a step. The numbers are those of `Transition.Kind`."""

    INIT = 0
    CLIENT = 1
    TIMER = 2
    MESSAGE = 3
    SERVICE = 4
    LOST_SERVICE = 5
    UPGRADE = 6


class DeliveryKind(IntEnum):
    """What a row of `delivery` is for. The numbers are those of `DeliveryFields.Kind`."""

    TIMER = 0  # of the instance itself
    MESSAGE = 1
    SPAWN = 2  # its event says what to create the target with
    CHILD_DONE = 3  # the end of a persistent child, or that there will be none


class Code(IntEnum):
    """First field of a runner's answer (docs/runner-protocol.md)."""

    CHANGED = 0
    UNCHANGED = 1
    DENIED = 2
    THREW = 3
    UNKNOWN_ACTIVATION = 4
    CHANGED_WITH_EFFECTS = 5


class Outcome(IntEnum):
    """What became of an operation in the store."""

    COMMITTED = 0
    CONFLICT = 1  # the instance has moved, or an earlier step of the same activation failed
    DUPLICATE = 2  # its request key is in the history already
    GONE = 3  # its delivery was consumed or cancelled meanwhile
    EXISTS = 4  # an instance of that name is there
    PAUSED = 5
    DELETED = 6
    FAILED = 7  # the database refused: certainly not applied
    AMBIGUOUS = 8  # the database may have applied it


class Reply(Protocol):
    """Where the answer of an operation goes; an `asyncio.Future` is one."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: Any, /) -> None: ...


class Replayed(bytes):
    """An answer to a request whose idempotency key is in the history: nothing was done again."""


class Delivery:
    """A row of `delivery`, as far as delivering it needs."""

    __slots__ = (
        "attempts",
        "auth",
        "claims",
        "due_at_ms",
        "event",
        "hops",
        "id",
        "key",
        "kind",
        "send_id",
        "source_id",
    )

    def __init__(
        self,
        delivery_id: int,
        kind: int,
        key: tuple[int, str],
        event: str,
        due_at_ms: int,
        attempts: int,
        claims: int,
        send_id: str | None = None,
        auth: str = "",
        hops: int = 0,
        source_id: int | None = None,
    ) -> None:
        self.id = delivery_id
        self.kind = kind
        self.key = key  # (machine id, slug) of the instance that it is for
        self.event = event
        self.due_at_ms = due_at_ms
        self.attempts = attempts
        self.claims = claims
        self.send_id = send_id
        self.auth = auth  # authContext of its sender as JSON
        self.hops = hops  # messages that led to it since something happened outside
        self.source_id = source_id  # the instance that sent it


class TimerRow:
    """A timer that a step has set: becomes a row of `delivery` in the step's commit."""

    __slots__ = ("delivery_id", "due_at_ms", "event", "hops", "n", "send_id")

    def __init__(self, n: int, send_id: str, event: str, due_at_ms: int, hops: int = 0) -> None:
        self.n = n  # position among the step's effects
        self.send_id = send_id
        self.event = event
        self.due_at_ms = due_at_ms
        self.hops = hops
        self.delivery_id = 0  # given by the store


class Rename:
    """A timer that goes on as what another version calls it: its row is replaced by a new one.

    The new row has an id of its own, so that whoever still has the old one in hand finds it gone.
    """

    __slots__ = ("attempts", "delivery_id", "due_at_ms", "event", "hops", "n", "send_id", "to")

    def __init__(self, n: int, send_id: str, to: str, event: str) -> None:
        self.n = n  # position among the step's effects
        self.send_id = send_id  # so far
        self.to = to
        self.event = event
        # Given by the store. No due time: there was no such timer, or nobody knows.
        self.delivery_id = 0
        self.due_at_ms: int | None = None
        self.attempts = 0
        self.hops = 0


class MessageRow:
    """What a step sends to another instance: becomes a row of `delivery` in the step's commit.

    It is addressed by the names of a machine and an instance of the sender's org; the end of a
    child by the id of the parent's row. Nobody knows yet whether there is such a target.
    """

    __slots__ = (
        "delivery_id",
        "due_at_ms",
        "event",
        "hops",
        "key",
        "kind",
        "machine",
        "n",
        "parent_id",
        "send_id",
        "slug",
    )

    def __init__(
        self,
        n: int,
        kind: DeliveryKind,
        machine: str,
        slug: str,
        event: str,
        due_at_ms: int,
        *,
        send_id: str | None = None,
        parent_id: int = 0,
        hops: int = 0,
    ) -> None:
        self.n = n  # position among the step's effects
        self.kind = kind
        self.machine = machine
        self.slug = slug
        self.event = event
        self.due_at_ms = due_at_ms
        self.send_id = send_id
        self.parent_id = parent_id
        self.hops = hops
        # Given by the store; no key: the parent is gone, and nothing was written.
        self.delivery_id = 0
        self.key: tuple[int, str] | None = None


class Creation(NamedTuple):
    """What an instance is to be made of."""

    version_id: int
    context: str  # given by the creator
    parent: str = ""  # reference to the parent as JSON
    parent_id: int | None = None  # row of the parent
    child_id: str | None = None  # by which the parent knows the new instance


class Operation:
    """One step that an instance is asked to take, from the request to its answer.

    Fields up to `suspect` are set when it is made; the rest as the runner and the store answer.
    """

    __slots__ = (
        "activation",
        "auth",
        "cancelled_ids",
        "cancels",
        "child",
        "children",
        "code",
        "commit_id",
        "context",
        "created_at_ms",
        "creation",
        "deadline_ms",
        "delivery",
        "duration_us",
        "effects",
        "event",
        "extra",
        "forwarded",
        "inbox_n",
        "key",
        "kind",
        "messages",
        "must_look_up_key",
        "public",
        "repetitions",
        "reply",
        "report",
        "request_key",
        "rid",
        "seq",
        "state",
        "suspect",
        "timers",
        "tries",
        "ts",
    )

    def __init__(
        self,
        kind: Kind,
        key: tuple[int, str],
        event: str,
        auth: str,
        reply: Reply | None = None,
        *,
        request_key: str | None = None,
        delivery: Delivery | None = None,
        child: str = "",
        inbox_n: str = "",
        creation: Creation | None = None,
    ) -> None:
        self.kind = kind
        self.key = key
        self.event = event
        self.auth = auth  # authContext of the sender as JSON; empty for the instance's own events
        self.reply = reply
        self.request_key = request_key
        # Requests with the same key that came while this one was under way: they get its answer.
        self.repetitions: list[Operation] | None = None
        self.delivery = delivery
        self.child = child  # JSON string: the service that a SERVICE or LOST_SERVICE event is of
        self.inbox_n = inbox_n
        self.creation = creation  # of INIT
        self.must_look_up_key = kind is Kind.CLIENT  # its request key, before it is computed
        self.forwarded = False  # another node asks for it, because its instance lives here
        self.tries = 0
        self.suspect = False  # was in flight when a runner died among others
        self.timers: list[TimerRow] | None = None
        self.messages: list[MessageRow] | None = None
        self.cancels: list[str] | None = None
        self.cancelled_ids: list[int] | None = None
        self.deadline_ms: int | None = None

    @property
    def is_external(self) -> bool:
        """Whether it comes from outside the activation, and so survives the activation's end."""
        return self.kind in (Kind.CLIENT, Kind.TIMER, Kind.MESSAGE)

    def answer(self, body: bytes) -> None:
        """Give the sender its answer; does nothing for deliveries and senders that went away."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_result(body)
        if self.repetitions:
            repetitions, self.repetitions = self.repetitions, None
            for repetition in repetitions:
                repetition.answer(Replayed(body))

    def refuse(self, error: EngineError) -> None:
        if self.reply is not None and not self.reply.done():
            self.reply.set_exception(error)
        if self.repetitions:
            repetitions, self.repetitions = self.repetitions, None
            for repetition in repetitions:
                repetition.refuse(error)

    # Set by the runner's answer and by the engine as it comes in.
    activation: Activation
    rid: str
    code: int
    state: str
    extra: str
    context: str
    public: str
    children: str
    effects: str
    report: str
    duration_us: int
    # Set when the step gets its place in the history.
    seq: int
    ts: int
    created_at_ms: int
    commit_id: int


class Upgrade(Operation):
    """The step that takes a settled instance to another version, just before its next event."""

    __slots__ = ("before", "description", "migrations", "renames")

    def __init__(
        self,
        key: tuple[int, str],
        event: str,
        reply: Reply,
        *,
        migrations: str,
        description: str,
        before: str,
    ) -> None:
        super().__init__(Kind.UPGRADE, key, event, "", reply)
        self.migrations = migrations  # JSON list of their ids, in order
        self.description = description  # of its state, in words that no version has of its own
        self.before = before  # its context
        self.renames: list[Rename] = []


class Activation:
    """One live load of an instance in one runner, and the queue of what it is asked to do.

    An operation moves `queue` → `sent` (to the runner) → `uncommitted` (answered, with the store)
    → `waiters` (committed, until the instance has settled). `tail_*` include steps that are
    answered and not yet committed; `seq`, `ts`, `state` … are those of the last commit.
    """

    __slots__ = (
        "acknowledgements",
        "aid",
        "children",
        "closing",
        "context",
        "dead",
        "deadline_ms",
        "extra",
        "hops",
        "inbox",
        "is_passing",
        "key",
        "link",
        "outdated",
        "parent",
        "public",
        "queue",
        "returned",
        "row_id",
        "self_made_ms",
        "sent",
        "sent_ms",
        "seq",
        "state",
        "tail_seq",
        "tail_ts",
        "timer",
        "ts",
        "uncommitted",
        "version_id",
        "waiters",
        "wants_acknowledgement",
    )

    def __init__(
        self, aid: str, key: tuple[int, str], row_id: int | None, version_id: int, link: RunnerLink
    ) -> None:
        self.aid = aid
        self.key = key
        self.row_id = row_id  # None until an instance that is being created is committed
        self.version_id = version_id
        self.link = link
        self.seq = self.tail_seq = 0
        self.ts = self.tail_ts = 0
        self.state = self.extra = self.context = self.public = ""
        self.children = SETTLED
        self.queue: deque[Operation] = deque()
        self.sent: deque[Operation] = deque()
        self.uncommitted: deque[Operation] = deque()
        self.waiters: list[Operation] = []
        self.returned: list[Operation] = []  # void: to be tried again once it has ended
        self.inbox = 0  # service events and self-sends that are announced and not yet committed
        self.acknowledgements = 0  # `K` lines sent and not yet answered: effects may be starting
        self.wants_acknowledgement = False  # the runner asked for a `K` (its `W` line)
        self.deadline_ms = 0  # settle deadline, wall clock
        self.self_made_ms = 0  # turn of the latest timer that a timer has set
        self.parent: tuple[int, str] | None = None  # row of the parent, and its id for this one
        self.sent_ms = 0  # due time of the latest message: the next one must not come before it
        self.hops = 0  # of the latest step from outside
        self.timer: Any = None  # of the settle deadline
        self.outdated = False  # its row wants another version: it ends as soon as it has settled
        self.closing = False  # sends nothing more; ends when `uncommitted` is empty
        self.dead = False  # what is not committed is void (also set by the store's writer thread)
        self.is_passing = (
            False  # what comes next goes to another node; it is dropped once it is idle
        )

    def is_settled(self) -> bool:
        return self.children == SETTLED and not self.acknowledgements and not self.inbox

    def is_idle(self) -> bool:
        """Nothing would be lost if it were dropped now."""
        return (
            self.is_settled()
            and not self.sent
            and not self.uncommitted
            and not self.queue
            and not self.waiters
            and not self.closing
        )

    def weight(self) -> int:
        """Bytes of JSON that it keeps in memory, here and in the runner alike."""
        return len(self.state) + len(self.extra) + len(self.context)

    def body(self) -> bytes:
        """The committed state as the API answers it."""
        return state_body(self.ts, self.state, self.public)


def state_body(ts: int, state: str, public: str) -> bytes:
    """`{"ts", "publicContext"?, "state", "tags", "done"}`, spliced from JSON texts."""
    if public:
        return f'{{"ts":{ts},"publicContext":{public},{state[1:]}'.encode()
    return f'{{"ts":{ts},{state[1:]}'.encode()
