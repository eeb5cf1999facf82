"""Real runners: the built harness in real Deno processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instances.runtime.build import build_harness
from instances.runtime.egress import look_up
from instances.runtime.settings import RuntimeSettings
from tests.instances.runtime.engine import Engine

PROJECT_ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RuntimeSettings:
    """No standby and no sampling by itself: a test asks for what it is about."""
    deno, esbuild = RuntimeSettings.find_programs(PROJECT_ROOT)
    return RuntimeSettings(
        deno=deno,
        esbuild=esbuild,
        harness=build_harness(PROJECT_ROOT),
        deno_dir=tmp_path_factory.mktemp("deno"),
        standby=0,
        memory_sample_s=3600.0,
    )


@pytest.fixture
async def start(settings: RuntimeSettings) -> AsyncIterator[Callable[..., Awaitable[Engine]]]:
    """Starts an engine with changed settings; it is stopped after the test."""
    async with AsyncExitStack() as stack:

        async def start(*, look_up: Any = look_up, **changes: Any) -> Engine:
            engine = Engine(replace(settings, **changes), look_up)
            stack.push_async_callback(engine.pool.stop)
            await engine.pool.start()
            return engine

        yield start


@pytest.fixture
async def engine(start: Callable[..., Awaitable[Engine]]) -> Engine:
    return await start()
