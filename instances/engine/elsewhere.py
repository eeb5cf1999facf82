"""Operations that another node has to process, because the instance lives there.

An instance with running services belongs to the node of its latest commit. Of two nodes that get
events of the same settled instance, spread at random, one sends its own to the other for a while,
so that they need not find out by conflicts, again and again. Which of them, both know without
asking: each instance likes one of any two nodes better. Where all of its events come from other
nodes, its owner gives it to the next one that asks.

What finds out by a conflict is processed where it is, not sent on: the other node has committed a
moment ago, and may stand still by now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from zlib import crc32

from instances.engine.errors import EngineError, NotOwner, NotReached, Unavailable
from instances.engine.operations import Kind, Operation
from instances.engine.store import InstanceRow

if TYPE_CHECKING:
    from instances.engine.core import Engine

CONFLICTS_BORNE = 1  # of an event; then it is left to the node that its instance likes better
CONFLICTS_BORNE_AT_MOST = 2  # then it is left to the other one
HOME_MS = 60_000  # for so long
FRESH_MS = 1_000  # a conflict with a commit of this age or less means that both nodes are in use
AVOID_MS = 2_000  # how long nothing that need not is sent to a node that did not react
STRANGERS_MAX = 16  # forwarded events in turn, without one of its own: the instance may move
HOMES_MAX = 10_000
# After its settle deadline an owner is taken for stuck. By then its runners have ended themselves:
# a node that stands still, its lease still valid, has not told them for so long to go on.
OWNER_GRACE_MS = 10_000


class Elsewhere:
    def __init__(self, engine: Engine, forward: Callable[[Operation, str], None] | None) -> None:
        self.engine = engine
        self.forward = forward  # have the node at an address process it
        self.fresh_ms = FRESH_MS
        # Contended instances: the address of the node that has them, and until when (ms).
        self.homes: dict[tuple[int, str], tuple[str, int]] = {}
        self.taken_over: set[tuple[int, str]] = set()  # given to this node by their owners
        # What others send here: (seq of the instance, forwarded events since).
        self.strangers: dict[tuple[int, str], tuple[int, int]] = {}
        # Addresses that do not react: until when (ms), and whether there is no way to them.
        self.avoided: dict[str, tuple[int, bool]] = {}

    def leave_to_owner(self, key: tuple[int, str], row: InstanceRow, address: str) -> None:
        """Forward what has to be processed by the living node of the last commit.

        That is everything while services run there. Of a settled instance, it is what conflicts
        here again: the node that the instance likes less gives way first.
        """
        engine = self.engine
        node, now_ms = engine.store.node, engine.clock.now_ms()
        owner = row.owner or ""
        if owner == node:
            return
        operations = engine.loading.waiting.pop(key)
        is_given = key in self.taken_over
        self.taken_over.discard(key)
        deadline_ms = row.settle_deadline
        if deadline_ms is not None:
            leaves = now_ms < deadline_ms + OWNER_GRACE_MS
        elif is_given or self._is_avoided(address):
            leaves = False
        else:
            is_liked_less = _liking(key, node) < _liking(key, owner)
            borne = CONFLICTS_BORNE if is_liked_less else CONFLICTS_BORNE_AT_MOST
            leaves = any(o.tries > borne and not o.forwarded for o in operations)
            if leaves or (
                is_liked_less
                and now_ms - row.ts < self.fresh_ms
                and any(o.tries for o in operations)
                and all(o.kind is Kind.CLIENT and not o.forwarded for o in operations)
            ):
                _bound(self.homes)
                self.homes[key] = (address, now_ms + HOME_MS)
        staying = []
        for operation in operations:
            if not leaves or (operation.forwarded and deadline_ms is None):
                staying.append(operation)
            else:
                self._send_on(operation, address)
        if staying:
            engine.loading.waiting[key] = staying

    def send_home(self, operation: Operation) -> bool:
        """Forward an operation of an instance that was lately left to another node."""
        home = self.homes.get(operation.key)
        if home is None or operation.forwarded or operation.tries:
            return False
        address, until_ms = home
        if self.engine.clock.now_ms() >= until_ms or self._is_avoided(address):
            del self.homes[operation.key]
            return False
        self._send_on(operation, address)
        return True

    def avoid(self, address: str, *, is_gone: bool = False) -> None:
        """A node did not react: for a while, only what must be is sent there."""
        self.avoided[address] = self.engine.clock.now_ms() + AVOID_MS, is_gone

    def _is_avoided(self, address: str, *, is_gone: bool = False) -> bool:
        """Whether a node does not react; with `is_gone`, whether there is no way to it at all."""
        found = self.avoided.get(address)
        if found is None:
            return False
        until_ms, was_gone = found
        if self.engine.clock.now_ms() >= until_ms:
            del self.avoided[address]
            return False
        return was_gone or not is_gone

    def must_decline(self, operation: Operation) -> bool:
        """Whether a forwarded event has better chances where it came from.

        While this node's database does not answer, what any node may process is not taken.
        """
        activation = self.engine.activations.get(operation.key)
        return (
            operation.kind is not Kind.MESSAGE
            and (activation is None or activation.is_settled())
            and self.engine.store.is_stalled()
        )

    def is_to_move(self, key: tuple[int, str]) -> bool:
        """Whether the node that now sends an event of this instance may have it from then on."""
        activation = self.engine.activations.get(key)
        if activation is None:
            return False
        since, count = self.strangers.get(key, (activation.tail_seq, 0))
        if activation.tail_seq - since > count:  # there were other events, too
            since, count = activation.tail_seq, 0
        if count >= STRANGERS_MAX:
            del self.strangers[key]
            return True
        if not count:
            _bound(self.strangers)
        self.strangers[key] = since, count + 1
        return False

    def take_over(self, key: tuple[int, str]) -> None:
        """Its owner has given up an instance: the next event is processed here."""
        self.homes.pop(key, None)
        _bound(self.taken_over)
        self.taken_over.add(key)

    def _send_on(self, operation: Operation, address: str) -> None:
        if operation.kind is Kind.MESSAGE:
            self.engine.messages.leave(operation, address)
        elif operation.forwarded or self.forward is None:
            self.engine.refuse(operation, NotOwner("its services run on another node"))
        elif operation.tries and self._is_avoided(address, is_gone=True):
            self.engine.refuse(operation, Unavailable("the node that runs this instance is away"))
        else:
            self.forward(operation, address)

    def forwarding_failed(self, operation: Operation, error: EngineError) -> None:
        """The other node refused it, or could not be asked."""
        self.homes.pop(operation.key, None)
        if operation.kind is Kind.MESSAGE:
            return  # it was only to wake the target
        if isinstance(error, NotOwner | NotReached) and operation.tries < self.engine.tries:
            operation.tries += 1
            # The row says by now who has it; if nobody must have it, it goes on here.
            self.engine.submit(operation)
            return
        if isinstance(error, NotOwner):
            error = Unavailable("the instance moves from node to node")
        if isinstance(error, NotReached):
            error = Unavailable(str(error))
        # A delivery's attempt was counted over there; its claim ends by itself.
        operation.refuse(error)
        self.engine.delivered(operation)


def _liking(key: tuple[int, str], node: str) -> int:
    """How much an instance likes a node: about half of them like either of two better."""
    return crc32(f"{node} {key[0]} {key[1]}".encode())


def _bound(remembered: dict[tuple[int, str], Any] | set[tuple[int, str]]) -> None:
    """Forget everything where there is too much: it only saves work."""
    if len(remembered) >= HOMES_MAX:
        remembered.clear()
