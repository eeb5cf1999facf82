"""Installs what is missing and does nothing else; for images and for `make setup`."""

from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Install what is missing and do nothing else."
    requires_system_checks = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        # Every command installs what is missing before it gets here.
        self.stdout.write("Everything is installed. Start it with: python3 manage.py up")
