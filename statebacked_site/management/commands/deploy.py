"""Bundles a machine's source file and makes it the machine's current version."""

from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from statebacked_site import bundling, local_access
from statebacked_site.site_client import ApiError, SiteClient, SiteUnreachable

TOKEN_LIFETIME = timedelta(minutes=10)

# What to do next, for the two commands that deploy migrations.
UPGRADE_ALL = """Instances stay on their version until another one is desired. For all of them:
  python3 manage.py api POST machines/{machine}/upgrades '{{"to": "{version}"}}'"""


class Command(BaseCommand):
    help = "Bundle a machine's source file and make it the machine's current version."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="TypeScript or JavaScript of the machine")
        parser.add_argument("--machine", help="name of the machine (the file's name)")
        parser.add_argument(
            "--migration",
            type=Path,
            metavar="FILE",
            help="deploy a migration, too: from the version that is current now to the new one",
        )
        parser.add_argument("--org", help="id or name of the org (the first one)")
        parser.add_argument("--data", help="data directory of the site (./data)")

    def handle(self, *_args: Any, **options: Any) -> None:
        local_access.require_running_site()
        access = local_access.grant(options["org"], token_name="deploy", lifetime=TOKEN_LIFETIME)
        client = SiteClient(access.api_url, access.access_token, access.org.public_id)
        source: Path = options["file"]
        migration: Path | None = options["migration"]
        try:
            machine = options["machine"] or bundling.machine_slug(source)
            code = bundling.bundle(source)
            if migration is None:
                self._deploy(client, machine, code, source.name)
            else:
                before = client.current_version(machine)
                if before is None:
                    raise CommandError(f"{machine} has no version yet that could be migrated from")
                migration_code = bundling.bundle(migration)
                version = self._deploy(client, machine, code, source.name)
                self._deploy_migration(client, machine, migration_code, before, version)
        except (bundling.CannotBundle, ApiError, SiteUnreachable) as exc:
            raise CommandError(str(exc)) from exc

    def _deploy(self, client: SiteClient, machine: str, code: bytes, client_info: str) -> str:
        is_new = client.create_machine(machine)
        version = client.publish_version(machine, code, client_info)
        what = "Created the machine" if is_new else "Updated the machine"
        self.stdout.write(
            f"{what} {machine}: its current version is {version} ({len(code):,} bytes)."
        )
        return version

    def _deploy_migration(
        self, client: SiteClient, machine: str, code: bytes, before: str, version: str
    ) -> None:
        try:
            public_id = client.publish_migration(machine, code, before, version)
        except ApiError as exc:
            raise CommandError(
                f"The migration was refused: {exc}\nThe new version is current all the same."
                " Correct the migration, and deploy it alone:\n"
                f"  python3 manage.py deploy_migration FILE --machine {machine}"
                f" --from {before} --to {version}"
            ) from exc
        self.stdout.write(f"The migration {public_id} leads from {before} to {version}.")
        self.stdout.write(UPGRADE_ALL.format(machine=machine, version=version))
