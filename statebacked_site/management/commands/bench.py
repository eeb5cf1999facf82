"""Measures the site; what and how is told in bench/."""

import sys
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Measure throughput and latency (bench --help)."
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass all arguments on as they are."""
        self.handle(*argv[2:])

    def handle(self, *arguments: str, **_options: Any) -> None:
        from bench.run import main

        sys.exit(main(list(arguments)))
