"""Sends one request to the site's HTTP API and prints the answer."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from statebacked_site import local_access
from statebacked_site.site_client import ApiError, SiteClient, SiteUnreachable

TOKEN_LIFETIME = timedelta(minutes=10)


class Command(BaseCommand):
    help = """Send a request to the HTTP API as an admin: api POST machines '{"slug": "toggler"}'"""
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "method", type=str.upper, choices=["GET", "POST", "PUT", "PATCH", "DELETE"]
        )
        parser.add_argument("path", help="below /api, such as machines/toggler/i/first")
        parser.add_argument("body", nargs="?", type=_json, help="JSON")
        parser.add_argument("--org", help="id or name of the org (the first one)")
        parser.add_argument("--data", help="data directory of the site (./data)")

    def handle(self, *_args: Any, **options: Any) -> None:
        local_access.require_running_site()
        access = local_access.grant(options["org"], token_name="api", lifetime=TOKEN_LIFETIME)
        client = SiteClient(access.api_url, access.access_token, access.org.public_id)
        try:
            answer = client.request(options["method"], options["path"], options["body"])
        except (ApiError, SiteUnreachable) as exc:
            raise CommandError(str(exc)) from exc
        if answer is not None:
            self.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False))


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise ArgumentTypeError(f"{text} is not JSON: {exc}") from exc
