"""What the event path remembers of tokens."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from authz.callers import Caller
from instances import lookups
from instances.lookups import Callers, in_thread, in_time
from statebacked_site.errors import Unavailable

KEY = (b"Bearer token", None, None)


async def test_token_is_verified_again_soon_where_another_process_may_revoke_it(monkeypatch):
    in_an_hour = time.time() + 3600
    caller = Caller(1, "org_x", frozenset(), {}, None, "sbk_x", expires_at=in_an_hour)

    async def identified(*_key: object) -> Caller:
        return caller

    monkeypatch.setattr(lookups, "_identify", identified)
    alone, shared = Callers(), Callers()
    shared.is_shared = True
    for callers in (alone, shared):
        await callers.verify(KEY)

    monkeypatch.setattr(time, "time", lambda: in_an_hour - 3000)

    assert alone.get(KEY) is not None
    assert shared.get(KEY) is None


async def test_look_up_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(lookups, "LOOK_UP_S", 0.1)
    answer = threading.Event()
    waiting = in_time(in_thread(answer.wait))

    with pytest.raises(Unavailable):
        await waiting()

    answer.set()


async def test_look_ups_leave_the_threads_of_the_loop_alone():
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    answer = threading.Event()
    waiting = [asyncio.ensure_future(in_thread(answer.wait)()) for _ in range(4)]
    await asyncio.sleep(0)  # all have begun

    await asyncio.to_thread(answer.set)

    assert all(await asyncio.gather(*waiting))
