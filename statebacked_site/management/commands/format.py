"""Formats the code."""

import sys
from typing import Any

from django.core.management.base import BaseCommand

from statebacked_site import quality


class Command(BaseCommand):
    help = "Format the code and repair what ruff can repair."
    requires_system_checks = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        sys.exit(quality.run_all(quality.FORMAT))
