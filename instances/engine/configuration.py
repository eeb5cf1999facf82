"""The node's settings, taken from Django's."""

from django.conf import settings

from instances.engine.node import NodeSettings
from instances.runtime.settings import RuntimeSettings


def node_settings() -> NodeSettings:
    return NodeSettings(
        database=settings.DATABASE_PATH,
        synchronous=settings.SQLITE_SYNCHRONOUS,
        settle_limit_ms=round(settings.SETTLE_LIMIT.total_seconds() * 1000),
        runtime=RuntimeSettings(
            project_root=settings.BASE_DIR,
            scratch_dir=settings.DATA_DIR / "runtime",
            memory_bytes_max=settings.RUNNERS_MEMORY_BYTES,
            egress_allow=tuple(settings.EGRESS_ALLOW),
        ),
    )
