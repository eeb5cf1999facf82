"""Subscriptions: who is told of an instance's new states.

Only the latest state matters. A subscriber may miss states in between, never goes back, and always
reaches the newest one. Every update passes `allowRead` with the subscriber's claims; subscribers
with the same claims share one question. While a question is under way, newer states wait and
replace each other, so a slow authorizer or a slow socket never makes a queue grow.

Everything here runs on the engine's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from instances.engine.json_texts import public_of
from instances.engine.operations import Code, Operation, state_body
from instances.engine.store import InstanceRow

if TYPE_CHECKING:
    from instances.engine.core import Engine
    from instances.engine.errors import EngineError
    from instances.lookups import LeanCaller

InstanceKey = tuple[int, str]  # machine id and instance slug
CommittedState = Operation | InstanceRow  # what is told of has `seq`, `ts` and `state` either way


class Listener(Protocol):
    """A connection."""

    caller: LeanCaller

    def push(self, subscription: Subscription, text: str) -> None:
        """Send this text; a text of the same subscription that still waits is replaced."""

    def gone(self, subscription: Subscription) -> None:
        """The instance was deleted."""

    def revoke(self) -> None:
        """The token is no longer good."""


class Watcher(Protocol):
    """One of our own pages: it sees every state, and no authorizer is asked."""

    def committed(self, state: CommittedState) -> None: ...
    def deleted(self) -> None: ...


class Subscription:
    """One connection's interest in one instance."""

    __slots__ = ("audience", "listener", "request_id", "seq")

    def __init__(self, listener: Listener, request_id: str) -> None:
        self.listener = listener
        self.request_id = request_id
        self.seq = 0  # of the latest state that was sent
        self.audience: Audience | None = None


class Audience:
    """All subscribers of an instance who have the same claims."""

    __slots__ = ("asked_seq", "auth", "is_asking", "subscriptions", "topic")

    def __init__(self, topic: Topic, auth: str) -> None:
        self.topic = topic
        self.auth = auth
        self.subscriptions: set[Subscription] = set()
        self.is_asking = False
        self.asked_seq = 0


class Topic:
    """An instance that somebody listens to."""

    __slots__ = ("audiences", "key", "latest", "machine")

    def __init__(self, key: InstanceKey, machine: str) -> None:
        self.key = key
        self.machine = machine
        self.audiences: dict[str, Audience] = {}  # by claims
        self.latest: InstanceRow | None = None  # the newest state that was committed meanwhile


class Realtime:
    """The subscriptions of this process."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self.loop = loop
        self.listeners: set[Listener] = set()
        self._topics: dict[InstanceKey, Topic] = {}
        self._moved: set[Topic] = set()
        self._watchers: dict[InstanceKey, set[Watcher]] = {}
        self._seqs: dict[InstanceKey, int] = {}  # of the newest state that is known here
        # Set where there are other processes: told when somebody begins to listen to an instance,
        # and when nobody does any more; and each commit, while somebody elsewhere listens.
        self.on_interest: Callable[[InstanceKey, bool], None] = lambda key, begins: None
        self._elsewhere: Callable[[Operation], None] | None = None

    # ------------------------------------------------------------------ subscriptions

    def subscribe(
        self, subscription: Subscription, key: InstanceKey, machine: str, auth: str
    ) -> None:
        """Tell of every later state. The caller tells of the present one, which it may read."""
        topic = self._topics.get(key)
        if topic is None:
            self._begin_to_listen(key)
            topic = self._topics[key] = Topic(key, machine)
        audience = topic.audiences.get(auth)
        if audience is None:
            audience = topic.audiences[auth] = Audience(topic, auth)
        audience.subscriptions.add(subscription)
        subscription.audience = audience

    def unsubscribe(self, subscription: Subscription) -> None:
        """Safe to call twice."""
        audience, subscription.audience = subscription.audience, None
        if audience is None:
            return
        audience.subscriptions.discard(subscription)
        topic = audience.topic
        if not audience.subscriptions:
            topic.audiences.pop(audience.auth, None)
        if not topic.audiences:
            self._topics.pop(topic.key, None)
            self._stop_listening_if_unused(topic.key)

    def watch(self, key: InstanceKey, watcher: Watcher) -> None:
        """Tell of every later commit."""
        self._begin_to_listen(key)
        self._watchers.setdefault(key, set()).add(watcher)

    def unwatch(self, key: InstanceKey, watcher: Watcher) -> None:
        """Safe to call twice."""
        watchers = self._watchers.get(key, set())
        watchers.discard(watcher)
        if not watchers:
            self._watchers.pop(key, None)
            self._stop_listening_if_unused(key)

    def _is_listened_to(self, key: InstanceKey) -> bool:
        return key in self._topics or key in self._watchers

    def _begin_to_listen(self, key: InstanceKey) -> None:
        if not self._is_listened_to(key):
            self.on_interest(key, True)
        self.engine.on_committed = self._on_committed

    def _stop_listening_if_unused(self, key: InstanceKey) -> None:
        if not self._is_listened_to(key):
            self._seqs.pop(key, None)
            self.on_interest(key, False)
        self._attend()

    def tell_elsewhere(self, tell: Callable[[Operation], None] | None) -> None:
        """Pass each commit on to other processes, or to none."""
        self._elsewhere = tell
        self._attend()

    def _attend(self) -> None:
        """Commits cost nothing while nobody listens."""
        is_used = self._topics or self._watchers or self._elsewhere is not None
        self.engine.on_committed = self._on_committed if is_used else None

    def instance_deleted(self, key: InstanceKey) -> None:
        for watcher in list(self._watchers.get(key, ())):
            watcher.deleted()
        topic = self._topics.get(key)
        for audience in list(topic.audiences.values()) if topic is not None else ():
            for subscription in list(audience.subscriptions):
                subscription.listener.gone(subscription)
                self.unsubscribe(subscription)

    def revoke(self, is_revoked: Callable[[LeanCaller], bool]) -> None:
        """Close the connections whose tokens were taken away."""
        for listener in list(self.listeners):
            if is_revoked(listener.caller):
                listener.revoke()

    # ------------------------------------------------------------------ updates

    def positions(self) -> list[tuple[InstanceKey, int]]:
        """What somebody listens to, and the seq of the newest state that is known here."""
        keys = {*self._topics, *self._watchers}
        return [(key, self._seqs.get(key, 0)) for key in keys]

    def found(self, key: InstanceKey, row: InstanceRow) -> None:
        """The database has a state that another node has committed."""
        if row.seq <= self._seqs.get(key, 0) or not self._is_listened_to(key):
            return  # a commit of our own came in between, or nobody listens any more
        self._seqs[key] = row.seq
        for watcher in self._watchers.get(key, ()):
            watcher.committed(row)
        topic = self._topics.get(key)
        if topic is not None:
            self._tell(topic, row)

    def _on_committed(self, operation: Operation) -> None:
        if self._elsewhere is not None:
            self._elsewhere(operation)
        watchers = self._watchers.get(operation.key, ())
        topic = self._topics.get(operation.key)
        if topic is None and not watchers:
            return
        self._seqs[operation.key] = operation.seq
        for watcher in watchers:
            watcher.committed(operation)
        if topic is None:
            return
        activation = operation.activation
        row = InstanceRow(
            activation.row_id or 0,
            activation.version_id,
            0,
            operation.seq,
            operation.ts,
            operation.state,
            operation.extra,
            operation.context,
            operation.children,
        )
        self._tell(topic, row)

    def _tell(self, topic: Topic, row: InstanceRow) -> None:
        topic.latest = row
        # Several commits of one tick are told once.
        if not self._moved:
            self.loop.call_soon(self._tell_moved)
        self._moved.add(topic)

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, set()
        for topic in moved:
            for audience in list(topic.audiences.values()):
                if not audience.is_asking:
                    self._ask(audience)

    def _ask(self, audience: Audience) -> None:
        row = audience.topic.latest
        if row is None or row.seq <= audience.asked_seq or not audience.subscriptions:
            return
        audience.is_asking = True
        audience.asked_seq = row.seq

        def answered(answer: int | EngineError) -> None:
            audience.is_asking = False
            if answer == Code.CHANGED:
                self._deliver(audience, row)
            self._ask(audience)  # a newer state may have come meanwhile

        self.engine.read(row, audience.topic.key[1], audience.auth, answered)

    def _deliver(self, audience: Audience, row: InstanceRow) -> None:
        text = update_text(audience.topic.machine, audience.topic.key[1], row)
        for subscription in audience.subscriptions:
            if row.seq > subscription.seq:
                subscription.seq = row.seq
                subscription.listener.push(subscription, text)


def update_text(machine: str, instance: str, row: InstanceRow) -> str:
    """The `instance-update` message of a state."""
    state = state_body(row.ts, row.state, public_of(row.context)).decode()
    return (
        f'{{"type":"instance-update","machineName":"{machine}",'
        f'"machineInstanceName":"{instance}",{state[1:]}'
    )
