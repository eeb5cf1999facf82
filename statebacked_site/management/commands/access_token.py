"""Prints an access token for scripts."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand

from statebacked_site import local_access
from statebacked_site.environment import parse_duration


class Command(BaseCommand):
    help = "Print an access token with all rights of an admin of the org."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--org", help="id or name of the org (the first one)")
        parser.add_argument(
            "--lifetime", type=_lifetime, default="30d", help="how long it is valid (30d)"
        )
        parser.add_argument(
            "--json", action="store_true", help='print {"apiUrl", "orgId", "accessToken"}'
        )
        parser.add_argument("--data", help="data directory of the site (./data)")

    def handle(self, *_args: Any, **options: Any) -> None:
        access = local_access.grant(
            options["org"], token_name="access_token command", lifetime=options["lifetime"]
        )
        if not options["json"]:
            self.stdout.write(access.access_token)
            return
        answer = {
            "apiUrl": access.api_url,
            "orgId": access.org.public_id,
            "accessToken": access.access_token,
        }
        self.stdout.write(json.dumps(answer))


def _lifetime(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise ArgumentTypeError(f"{text} {exc}") from exc
