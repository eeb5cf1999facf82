"""Breaks the parts of a site under load; what and how is told in bench/faults/."""

import sys
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Break the parts of a site under load, and check every promise (faults --help)."
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass all arguments on as they are."""
        self.handle(*argv[2:])

    def handle(self, *arguments: str, **_options: Any) -> None:
        from bench.faults.run import main

        sys.exit(main(list(arguments)))
