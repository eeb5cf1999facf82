"""What the event path remembers between requests: verified tokens, and machines by their slug."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import msgspec
from asgiref.sync import sync_to_async
from django.db import Error, InterfaceError, OperationalError, close_old_connections

from authz.callers import Caller, identify
from authz.errors import MissingOrg
from machines.models import Machine, MachineVersion
from statebacked_site.errors import InvalidParameter, NotFound, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

CALLERS_MAX = 10_000
MACHINES_MAX = 10_000
# How long a token is believed where another process may revoke it without our knowing.
SHARED_CALLER_LIFETIME_S = 10.0
MACHINE_LIFETIME_S = 10.0  # how long a machine's current version is believed without a look
# The event loop's shared threads must not be the ones that wait for a database: the engine's
# connections, among others, are opened there.
THREADS = 16
LOOK_UP_S = 4.0  # in which a request's look-up is answered, its wait for a thread included
SEND_SCOPES = frozenset({"events.write", "instances.write"})


class LeanCaller:
    """A verified token, as the event path needs it."""

    __slots__ = (
        "auth",
        "believed_until",
        "can_create",
        "can_read",
        "can_send",
        "expires_at",
        "is_admin",
        "key_id",
        "org_id",
    )

    def __init__(self, caller: Caller) -> None:
        if caller.org_id is None:
            raise MissingOrg("This token belongs to no org")
        self.org_id = caller.org_id
        self.expires_at = caller.expires_at
        self.believed_until = caller.expires_at
        self.key_id = caller.key_public_id
        self.auth = msgspec.json.encode(caller.auth_context).decode()
        self.can_send = not caller.scopes.isdisjoint(SEND_SCOPES)
        self.can_create = "instances.write" in caller.scopes
        self.can_read = "state.read" in caller.scopes
        self.is_admin = "instances.admin" in caller.scopes


# The headers Authorization, x-statebacked-org-id and x-statebacked-act, as they came.
CallerKey = tuple[bytes | None, bytes | None, bytes | None]


class Callers:
    """Verified tokens by the headers that carried them, until they expire or their key goes."""

    def __init__(self) -> None:
        self.is_shared = False  # whether other processes serve the same database
        self._known: dict[CallerKey, LeanCaller] = {}
        self._generation = 0

    def get(self, key: CallerKey) -> LeanCaller | None:
        caller = self._known.get(key)
        if caller is not None and caller.believed_until > time.time():
            return caller
        return None

    async def verify(self, key: CallerKey) -> LeanCaller:
        """Raises what `authz.callers.identify` raises."""
        generation = self._generation
        caller = LeanCaller(await _identify(*key))
        if self.is_shared:
            caller.believed_until = min(caller.expires_at, time.time() + SHARED_CALLER_LIFETIME_S)
        if generation == self._generation:  # nothing was revoked while it was looked up
            if len(self._known) >= CALLERS_MAX:
                self._known.clear()
            self._known[key] = caller
        return caller

    def forget_key(self, key_id: str) -> None:
        self._generation += 1
        self._known = {k: c for k, c in self._known.items() if c.key_id != key_id}

    def clear(self) -> None:
        self._generation += 1
        self._known.clear()


# What a function of `in_thread` raises where the database is at fault: background work goes on.
DATABASE_TROUBLE = (Unavailable, Error)


def in_thread(look_up: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """`look_up`, which asks the database, for the loop: run in any free one of our threads.

    Not in Django's thread of the request: `door.run` may have been called in that, and waits.
    It raises Unavailable when the database can't be asked: nothing was done then.
    """

    def with_fresh_connection(*args: P.args, **kwargs: P.kwargs) -> T:
        close_old_connections()
        try:
            return look_up(*args, **kwargs)
        except (OperationalError, InterfaceError) as error:
            raise Unavailable("The database can't be reached now") from error
        finally:
            close_old_connections()

    return sync_to_async(with_fresh_connection, thread_sensitive=False, executor=_threads)


_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="look-up")


def in_time(look_up: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """`look_up`, which only reads, given up after LOOK_UP_S: then it raises Unavailable."""

    @functools.wraps(look_up)
    async def within_limit(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            async with asyncio.timeout(LOOK_UP_S):
                return await look_up(*args, **kwargs)
        except TimeoutError as error:
            raise Unavailable("The database doesn't answer in time") from error

    return within_limit


@in_time
@in_thread
def _identify(authorization: bytes | None, org: bytes | None, act: bytes | None) -> Caller:
    return identify(_text(authorization), _text(org), _text(act), time.time())


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None


class Machines:
    """Machine ids and current versions by (org id, machine slug)."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], tuple[int, int | None, float]] = {}

    def get(self, org_id: int, slug: str) -> tuple[int, int | None] | None:
        known = self._known.get((org_id, slug))
        if known is not None and known[2] > time.monotonic():
            return known[0], known[1]
        return None

    async def find(self, org_id: int, slug: str) -> tuple[int, int | None]:
        """(machine id, current version id). Raises NotFound."""
        found = await _find_machine(org_id, slug)
        if found is None:
            raise NotFound(f"There is no machine {slug}")
        if len(self._known) >= MACHINES_MAX:
            self._known.clear()
        self._known[org_id, slug] = (*found, time.monotonic() + MACHINE_LIFETIME_S)
        return found

    def forget(self, machine_id: int) -> None:
        self._known = {k: v for k, v in self._known.items() if v[0] != machine_id}

    def clear(self) -> None:
        self._known.clear()


@in_time
@in_thread
def _find_machine(org_id: int, slug: str) -> tuple[int, int | None] | None:
    query = Machine.objects.filter(org_id=org_id, slug=slug)
    return query.values_list("id", "current_version_id").first()


@in_time
@in_thread
def find_version(machine_id: int, public_id: str) -> int:
    """The id of a version of this machine. Raises InvalidParameter."""
    query = MachineVersion.objects.filter(machine_id=machine_id, public_id=public_id)
    version_id = query.values_list("id", flat=True).first()
    if version_id is None:
        raise InvalidParameter("The machine has no such version", "machineVersionId")
    return version_id


callers = Callers()
machines = Machines()
