"""What the event path remembers of tokens."""

import time

from authz.callers import Caller
from instances import lookups
from instances.lookups import Callers

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
