"""The site's settings as the engine and the runtime take them: plain values, no Django."""

from datetime import timedelta

from django.conf import settings

from instances.engine.dispatch import Broker
from instances.engine.forwarding import signing_key
from instances.engine.node import NodeSettings
from instances.runtime.settings import RuntimeSettings

RETIRE_MARGIN = timedelta(seconds=5)


def engine_settings() -> NodeSettings:
    deno, esbuild = RuntimeSettings.find_programs(settings.BASE_DIR)
    return NodeSettings(
        database=settings.DATABASE,
        synchronous=settings.SQLITE_SYNCHRONOUS,
        role=settings.NODE_ROLE,
        address=settings.NODE_ADDRESS or settings.PUBLIC_URL,
        forwarding_key=signing_key(settings.SECRET_KEY),
        settle_limit_ms=settings.SETTLE_LIMIT // timedelta(milliseconds=1),
        runtime=RuntimeSettings(
            deno=deno,
            esbuild=esbuild,
            harness=settings.BASE_DIR / "build" / "harness",
            deno_dir=settings.DATA_DIR / "deno",
            memory_max_bytes=settings.RUNNERS_MEMORY_BYTES,
            # A runner that retires lets its instances settle first.
            retire_s=(settings.SETTLE_LIMIT + RETIRE_MARGIN).total_seconds(),
            egress_allow=settings.EGRESS_ALLOW,
        ),
        log_retention_ms=settings.LOG_RETENTION // timedelta(milliseconds=1),
        redis_url=settings.REDIS_URL,
        site_tag=settings.SITE_TAG,
        broker=_celery_broker if settings.NODE_ROLE == "worker" else None,
    )


def _celery_broker() -> Broker:
    from statebacked_site.broker import CeleryBroker  # only workers need Celery

    return CeleryBroker()
