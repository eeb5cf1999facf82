"""Operations that another node has to process, because the instance lives there.

An instance with running services belongs to the node of its latest commit. A settled one that
several nodes contend for is left for a while to the one that commits to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from instances.engine.errors import EngineError, NotOwner, Unavailable
from instances.engine.operations import Kind, Operation
from instances.engine.store import InstanceRow

if TYPE_CHECKING:
    from instances.engine.core import Engine

CONFLICTS_BORNE = 2  # then a settled instance is left to the node that commits to it
HOME_MS = 5_000  # for so long
HOMES_MAX = 10_000
OWNER_GRACE_MS = 5_000  # after its settle deadline an owner is taken for stuck


class Elsewhere:
    def __init__(self, engine: Engine, forward: Callable[[Operation, str], None] | None) -> None:
        self.engine = engine
        self.forward = forward  # have the node at an address process it
        # Contended instances: the address of the node that has them, and until when (ms).
        self.homes: dict[tuple[int, str], tuple[str, int]] = {}

    def leave_to_owner(self, key: tuple[int, str], row: InstanceRow, address: str) -> None:
        """Forward what has to be processed by the living node of the last commit.

        That is everything while services run there. Of a settled instance, it is what conflicted
        here: of two nodes that contend for it, the one with the lesser id gives way first.
        """
        engine = self.engine
        node, now_ms = engine.store.node, engine.clock.now_ms()
        owner = row.owner or ""
        if owner == node:
            return
        operations = engine.loading.waiting.pop(key)
        deadline_ms = row.settle_deadline
        if deadline_ms is not None:
            leaves = now_ms < deadline_ms + OWNER_GRACE_MS
        else:
            borne = CONFLICTS_BORNE if owner > node else 2 * CONFLICTS_BORNE
            leaves = any(o.tries > borne and not o.forwarded for o in operations)
            if leaves:
                if len(self.homes) >= HOMES_MAX:
                    self.homes.clear()
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
        if home is None or operation.forwarded:
            return False
        address, until_ms = home
        if self.engine.clock.now_ms() >= until_ms:
            del self.homes[operation.key]
            return False
        self._send_on(operation, address)
        return True

    def _send_on(self, operation: Operation, address: str) -> None:
        if operation.kind is Kind.MESSAGE:
            self.engine.messages.leave(operation, address)
        elif operation.forwarded or self.forward is None:
            self.engine.refuse(operation, NotOwner("its services run on another node"))
        else:
            self.forward(operation, address)

    def forwarding_failed(self, operation: Operation, error: EngineError) -> None:
        """The other node refused it, or could not be asked."""
        self.homes.pop(operation.key, None)
        if operation.kind is Kind.MESSAGE:
            return  # it was only to wake the target
        if isinstance(error, NotOwner) and operation.tries < self.engine.tries:
            operation.tries += 1
            self.engine.submit(operation)  # the row says by now who has it
            return
        if isinstance(error, NotOwner):
            error = Unavailable("the instance moves from node to node")
        # A delivery's attempt was counted over there; its claim ends by itself.
        operation.refuse(error)
        self.engine.delivered(operation)
