"""The Celery application: carries out background work that the database already holds."""

import os
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from celery.signals import setup_logging
from kombu.connection import Connection

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "statebacked_site.settings")

RECONNECT_EVERY_S = 0.5


class EagerConnection(Connection):
    """Comes back as soon as the broker does, and says once that it is away.

    Celery would wait longer and longer, up to half a minute: so long would deliveries be late that
    others have published already.
    """

    def ensure_connection(self, errback: Any = None, *arguments: Any, **options: Any) -> Any:
        told: list[bool] = []

        def tell_once(error: Exception, interval_s: float) -> None:
            if not told and errback is not None:
                told.append(True)
                errback(error, interval_s)

        intervals = {"interval_start": RECONNECT_EVERY_S, "interval_step": 0.0}
        return super().ensure_connection(  # type: ignore[no-untyped-call]
            tell_once, *arguments, **intervals, **options
        )


class EagerAMQP(AMQP):  # type: ignore[misc]
    Connection = EagerConnection


class SiteCelery(Celery):  # type: ignore[misc]
    amqp_cls = EagerAMQP


app = SiteCelery("statebacked")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# Each worker hosts an engine.
app.steps["worker"].add("statebacked_site.worker:EngineStep")


@setup_logging.connect  # type: ignore[untyped-decorator]
def _keep_the_sites_logging(**_arguments: Any) -> None:
    """Django has set up logging already: Celery must leave it alone."""
