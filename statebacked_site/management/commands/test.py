"""Runs the checks and the tests."""

import sys
from typing import Any

from django.core.management.base import BaseCommand

from statebacked_site import quality


class Command(BaseCommand):
    help = (
        "Run ruff, mypy and all tests. With arguments, run pytest with them and nothing else:"
        " test tests/site -k port"
    )
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass all arguments on to pytest as they are."""
        if argv[2:] in (["--help"], ["-h"]):
            self.print_help(argv[0], argv[1])
            return
        self.handle(*argv[2:])

    def handle(self, *arguments: str, **_options: Any) -> None:
        tests = {"pytest": ["pytest", *arguments]}
        sys.exit(quality.run_all(tests if arguments else {**quality.LINT, **tests}))
