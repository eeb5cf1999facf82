"""The Celery application: carries out background work that the database already holds."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "statebacked_site.settings")

app = Celery("statebacked")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
