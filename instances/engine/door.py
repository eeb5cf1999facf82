"""The door between ordinary synchronous Django and the engine on its loop.

Functions here block the calling thread until the engine has done its part. They must not be called
on the engine's own loop. Where no engine runs in this process (commands, tests), those that only
announce something do nothing, and those that need the engine raise `EngineNotRunning`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from instances.engine.errors import OutcomeUnknown, Unavailable
from instances.engine.forwarding import Forwarder
from instances.engine.holding import Resume
from instances.engine.node import EngineNode
from instances.engine.postgres_session import DatabaseError
from instances.lookups import LeanCaller, callers, machines
from instances.models import Instance
from instances.news import (
    InstanceOutdated,
    InstanceStopped,
    KeyDeleted,
    Message,
    TokenRevoked,
    VersionPublished,
)
from instances.runtime.bundle import BundleInfo

log = logging.getLogger("statebacked.engine")

T = TypeVar("T")

CALL_LIMIT_S = 100.0

_node: EngineNode | None = None


class EngineNotRunning(Unavailable):
    """This process serves no events: the engine is in another one, or not started."""


def install(node: EngineNode | None) -> None:
    """Called when the server starts and stops."""
    global _node
    _node = node


def node() -> EngineNode:
    if _node is None:
        raise EngineNotRunning("The engine does not run in this process")
    return _node


def is_ready() -> bool:
    """Whether events can be served: started, not stopping, and with a lease that is good."""
    return _node is not None and _node.ready and not _node.engine.suspended


def forwarder() -> Forwarder | None:
    """Takes events that other nodes send, also while this one drains; None without other nodes."""
    return _node.forwarder if _node is not None else None


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the engine's loop and wait for it."""
    try:
        loop = node().loop
    except EngineNotRunning:
        coroutine.close()
        raise
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(CALL_LIMIT_S)
    except TimeoutError as exc:
        raise OutcomeUnknown("The engine did not answer in time") from exc


def deliver(delivery_ids: list[int]) -> int:
    """Take on deliveries that some node's pump has claimed; how many are to be done still.

    Where the database does not answer, none: their claims end, and somebody claims them anew.
    """
    try:
        return run(node().take(delivery_ids))
    except DatabaseError as error:
        log.warning("%s deliveries are left until their claims end: %s", len(delivery_ids), error)
        return 0


def check_bundle(source: bytes) -> BundleInfo:
    """Convert and load an uploaded bundle in the sandbox. Raises InvalidBundle."""
    return run(node().pool.check_bundle(source))


def check_migration(source: bytes) -> BundleInfo:
    """The same for an uploaded migration."""
    return run(node().pool.check_migration(source))


def set_status(instance_id: int, status: int, timers: Resume = Resume.ORIGINAL) -> bool:
    """Pause or resume an instance; False if it is gone."""
    here = node()
    key = _key_of(instance_id)
    if key is None:
        return False
    engine = here.engine
    found = bool(run(here.call(lambda f: engine.set_status(key, instance_id, status, f, timers))))
    if found and status != Instance.Status.RUNNING:
        _tell_others(InstanceStopped(*key, False))
    return found


def delete_instance(instance_id: int) -> bool:
    """Delete an instance with its history, timers and logs; False if it was gone."""

    here = node()
    key = _key_of(instance_id)
    if key is None:
        return False
    found = bool(run(here.call(lambda f: here.engine.delete(key, instance_id, f))))
    here.loop.call_soon_threadsafe(here.realtime.instance_deleted, key)
    if found:
        _tell_others(InstanceStopped(*key, True))
    here.loop.call_soon_threadsafe(here.places.note_deleted, instance_id)
    return found


def instance_outdated(instance_id: int) -> None:
    """Another version is desired for an instance, or none any more: that is in its row by now.

    When this returns, its next event here finds the row. Other processes hear of it, or notice when
    they commit.
    """
    key = _key_of(instance_id)
    if key is not None:
        instances_outdated([key])
        _tell_others(InstanceOutdated(*key))


def instances_outdated(keys: list[tuple[int, str]]) -> None:
    """The same for many. Other processes notice when they commit: so much news would not pay."""
    if _node is None:
        return
    engine = _node.engine

    async def reload() -> None:
        for key in keys:
            engine.reload(key)

    run(reload())


def _key_of(instance_id: int) -> tuple[int, str] | None:
    # Here: on the loop, Django would hand it back to this very thread, which waits.
    values = Instance.objects.filter(pk=instance_id).values_list("machine_id", "slug")
    return values.first()


def version_published(machine_id: int) -> None:
    """A machine has a new current version, or is gone: look it up again."""
    machines.forget(machine_id)
    _tell_others(VersionPublished(machine_id))


def key_deleted(public_id: str) -> None:
    """Tokens signed by this key stop working at once."""
    callers.forget_key(public_id)
    _revoke(lambda caller: caller.key_id == public_id)
    _tell_others(KeyDeleted(public_id))


def token_revoked() -> None:
    """An access token or a role was taken away: verify every token again."""
    callers.clear()
    # Whose it was is not known here: people's connections are closed, and come back if they may.
    _revoke(lambda caller: caller.key_id is None)
    _tell_others(TokenRevoked())


def _revoke(is_revoked: Callable[[LeanCaller], bool]) -> None:
    if _node is not None:
        _node.loop.call_soon_threadsafe(_node.realtime.revoke, is_revoked)


def _tell_others(news: Message) -> None:
    """Tell the site's other processes at once, if it has Redis; without, they notice in time."""
    if _node is not None and _node.fan_out is not None:
        _node.loop.call_soon_threadsafe(_node.fan_out.bus.tell_all, news)
