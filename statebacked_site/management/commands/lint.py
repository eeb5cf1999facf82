"""Checks style and types."""

import sys
from typing import Any

from django.core.management.base import BaseCommand

from statebacked_site import quality


class Command(BaseCommand):
    help = "Check style and types with ruff and mypy."
    requires_system_checks = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        sys.exit(quality.run_all(quality.LINT))
