"""Runs the checks and the tests."""

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand

from statebacked_site import quality

# What depends on the database. The first run of all tests is on SQLite.
ON_POSTGRES = (
    "tests/authz",
    "tests/contract/test_api.py",
    "tests/machines/test_api.py",
    "tests/machines/test_publishing.py",
    "tests/instances/test_api.py",
    "tests/instances/test_dead_letters_api.py",
    "tests/instances/test_event_path.py",
    "tests/instances/test_places.py",
    "tests/instances/test_housekeeping.py",
    "tests/instances/test_realtime.py",
    "tests/instances/test_views.py",
    "tests/acceptance/test_concurrency.py",
    "tests/acceptance/test_kill.py",
    "tests/acceptance/test_settling.py",
    "tests/acceptance/test_timers.py",
)


class Command(BaseCommand):
    help = (
        "Run ruff, mypy and all tests, those that depend on the database on SQLite and on Postgres."
        " With arguments, run pytest with them and nothing else: test tests/site -k port."
        " --database postgres before them runs them on Postgres"
    )
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass all arguments on to pytest as they are."""
        if argv[2:] in (["--help"], ["-h"]):
            self.print_help(argv[0], argv[1])
            return
        self.handle(*argv[2:])

    def handle(self, *arguments: str, **_options: Any) -> None:
        if arguments[:2] == ("--database", "postgres"):
            sys.exit(_run_on_postgres(arguments[2:] or ON_POSTGRES))
        if arguments:
            sys.exit(quality.run_all({"pytest": ["pytest", *arguments]}))
        failed = quality.run_all({**quality.LINT, "pytest": ["pytest"]})
        sys.exit(_run_on_postgres(ON_POSTGRES) or failed)


def _run_on_postgres(arguments: tuple[str, ...]) -> int:
    os.environ["TESTS_DATABASE"] = "postgres"  # tests/settings.py starts a server
    # After each, the killed server's lease has to end first.
    os.environ.setdefault("ACCEPTANCE_KILLS", "4")
    return quality.run_all({"pytest on Postgres": ["pytest", *arguments]})
