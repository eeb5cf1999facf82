"""Prints a link that signs one person in, once."""

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from authz import sign_in_links
from authz.models import User
from statebacked_site import local_access


class Command(BaseCommand):
    help = "Print a link that signs a person in to the dashboard, once."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--email", help="of the person (the first admin)")
        parser.add_argument("--data", help="data directory of the site (./data)")

    def handle(self, *_args: Any, **options: Any) -> None:
        user = _find_user(options["email"])
        path = sign_in_links.create_link(user, datetime.now(UTC))
        self.stdout.write(f"{local_access.site_url()}{path}")


def _find_user(email: str | None) -> User:
    if email is None:
        return local_access.first_admin()
    user = User.objects.filter(email__iexact=email, is_active=True).first()
    if user is None:
        raise CommandError(f"Nobody here has the e-mail address {email}.")
    return user
