"""Bundles a machine's source file and makes it the machine's current version."""

from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from statebacked_site import bundling, local_access
from statebacked_site.site_client import ApiError, SiteClient, SiteUnreachable

TOKEN_LIFETIME = timedelta(minutes=10)


class Command(BaseCommand):
    help = "Bundle a machine's source file and make it the machine's current version."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="TypeScript or JavaScript of the machine")
        parser.add_argument("--machine", help="name of the machine (the file's name)")
        parser.add_argument("--org", help="id or name of the org (the first one)")
        parser.add_argument("--data", help="data directory of the site (./data)")

    def handle(self, *_args: Any, **options: Any) -> None:
        local_access.require_running_site()
        access = local_access.grant(options["org"], token_name="deploy", lifetime=TOKEN_LIFETIME)
        client = SiteClient(access.api_url, access.access_token, access.org.public_id)
        source: Path = options["file"]
        try:
            machine = options["machine"] or bundling.machine_slug(source)
            code = bundling.bundle(source)
            is_new = client.create_machine(machine)
            version = client.publish_version(machine, code, client_info=source.name)
        except (bundling.CannotBundle, ApiError, SiteUnreachable) as exc:
            raise CommandError(str(exc)) from exc
        what = "Created the machine" if is_new else "Updated the machine"
        self.stdout.write(
            f"{what} {machine}: its current version is {version} ({len(code):,} bytes)."
        )
