"""The WebSocket of our own pages, `/live`: one a tab, for people who are signed in.

A page says which instance it shows ({"org", "machine", "instance"}) and is told of each new state
of it; what it shows besides, it asks for as HTML. No authorizer of the machine is asked: members of
an org see all of its instances. Only the newest state is told, at most thirty times a second.

The published protocol for clients is another socket (instances/consumers.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import msgspec
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.security.websocket import AllowedHostsOriginValidator

from authz.members import get_member
from authz.models import User
from instances.access import get_instance
from instances.engine import door
from instances.realtime import CommittedState, InstanceKey
from machines.flow.model import active_paths
from statebacked_site.errors import DomainError

MESSAGE_BYTES_MAX = 4_096
SEND_EVERY_S = 1 / 30
CHECK_MEMBERSHIP_EVERY_S = 60.0

CLOSE_TOO_LARGE = 1009
CLOSE_TRY_AGAIN_LATER = 1013
CLOSE_NOT_ALLOWED = 4403
CLOSE_NOT_UNDERSTOOD = 4400


class Watch(msgspec.Struct):
    """What a page shows."""

    org: str
    machine: str
    instance: str


_decode_watch = msgspec.json.Decoder(Watch).decode


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One tab."""

    # States come from the engine directly; no channel layer stands between.
    channel_layer_alias = "none"

    async def connect(self) -> None:
        self._watch: Watch | None = None
        self._key: InstanceKey | None = None
        self._newest: CommittedState | None = None
        self._sender: asyncio.Task[None] | None = None
        self._checker: asyncio.Task[None] | None = None
        user: Any = self.scope["user"]
        if not isinstance(user, User):
            await self.close(CLOSE_NOT_ALLOWED)
        elif not door.is_ready():
            await self.close(CLOSE_TRY_AGAIN_LATER)
        else:
            self._user = user
            await self.accept()

    async def disconnect(self, code: int) -> None:
        self._unwatch()
        for task in (self._sender, self._checker):
            if task is not None:
                task.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        data = text_data or ""
        if len(data) > MESSAGE_BYTES_MAX:
            await self.close(CLOSE_TOO_LARGE)
            return
        try:
            watch = _decode_watch(data)
            key, message = await self._look_up(watch)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            await self.close(CLOSE_NOT_UNDERSTOOD)
            return
        except DomainError:
            await self.close(CLOSE_NOT_ALLOWED)
            return
        self._unwatch()
        self._watch, self._key = watch, key
        door.node().realtime.watch(key, self)
        if self._checker is None:
            self._checker = asyncio.create_task(self._check_membership())
        await self._send(message)

    @database_sync_to_async  # type: ignore[untyped-decorator]
    def _look_up(self, watch: Watch) -> tuple[InstanceKey, dict[str, Any]]:
        """Raises NotFound for what this person may not see."""
        member = get_member(self._user, watch.org)
        instance = get_instance(member.caller, watch.machine, watch.instance)
        message = {"type": "watching", "seq": instance.seq}
        return (instance.machine_id, instance.slug), message

    async def _check_membership(self) -> None:
        """Close the socket of somebody who has left the org."""
        while self._watch is not None:
            await asyncio.sleep(CHECK_MEMBERSHIP_EVERY_S)
            try:
                await self._look_up(self._watch)
            except DomainError:
                await self.close(CLOSE_NOT_ALLOWED)
                return

    # ------------------------------------------------------------------ the engine tells

    def committed(self, state: CommittedState) -> None:
        """A new state of the instance; a newer one replaces it while it waits to be sent."""
        self._newest = state
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_newest())

    def deleted(self) -> None:
        self._sender = asyncio.create_task(self._send({"type": "deleted"}))

    async def _send_newest(self) -> None:
        with contextlib.suppress(RuntimeError):  # the connection was closed meanwhile
            while self._newest is not None:
                state, self._newest = self._newest, None
                await self.send(text_data=_moved_text(state))
                await asyncio.sleep(SEND_EVERY_S)

    async def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the connection was closed meanwhile
            await self.send(text_data=msgspec.json.encode(message).decode())

    def _unwatch(self) -> None:
        if self._key is not None and door.is_ready():
            door.node().realtime.unwatch(self._key, self)
        self._key = None


def _moved_text(committed: CommittedState) -> str:
    """The state with the number of the transition and its moment, and what to light up for it."""
    state = msgspec.json.decode(committed.state)
    return msgspec.json.encode(
        {
            "type": "moved",
            "seq": committed.seq,
            "ts": committed.ts,
            "now": time.time_ns() // 1_000_000,
            "active": active_paths(state["state"]),
            **state,
        }
    ).decode()


# Other sites' pages can't open it in a visitor's name: the browser tells their origin.
live_application = AllowedHostsOriginValidator(AuthMiddlewareStack(LiveConsumer.as_asgi()))
