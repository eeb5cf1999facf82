"""Measures the site; what and how is described in bench/."""

import sys
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Measure throughput and latency (bench --help)."

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass all arguments on as they are."""
        from bench.run import main

        sys.argv = [" ".join(argv[:2]), *argv[2:]]
        sys.exit(main())

    def handle(self, *_args: Any, **_options: Any) -> None:
        from bench.run import main

        main()
