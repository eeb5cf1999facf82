"""The node's settings, taken from Django's."""

from django.conf import settings

from instances.engine.node import NodeSettings
from instances.runtime.build import build_harness
from instances.runtime.settings import RuntimeSettings


def node_settings() -> NodeSettings:
    deno, esbuild = RuntimeSettings.find_programs(settings.BASE_DIR)
    return NodeSettings(
        database=settings.DATABASE_PATH,
        synchronous=settings.SQLITE_SYNCHRONOUS,
        settle_limit_ms=round(settings.SETTLE_LIMIT.total_seconds() * 1000),
        runtime=RuntimeSettings(
            deno=deno,
            esbuild=esbuild,
            harness=build_harness(settings.BASE_DIR),
            deno_dir=settings.DATA_DIR / "deno",
            memory_max_bytes=settings.RUNNERS_MEMORY_BYTES,
            egress_allow=tuple(settings.EGRESS_ALLOW),
        ),
    )
