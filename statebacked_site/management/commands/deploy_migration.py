"""Bundles the code that upgrades instances from one version of a machine to another."""

from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from statebacked_site import bundling, local_access
from statebacked_site.management.commands.deploy import UPGRADE_ALL
from statebacked_site.site_client import ApiError, SiteClient, SiteUnreachable

TOKEN_LIFETIME = timedelta(minutes=10)


class Command(BaseCommand):
    help = "Bundle a migration between two versions of a machine and deploy it."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="exports upgradeState and upgradeContext")
        parser.add_argument("--machine", required=True, help="name of the machine")
        parser.add_argument("--from", help="id of a version (the one deployed before the other)")
        parser.add_argument("--to", help="id of a version (the current one)")
        parser.add_argument("--org", help="id or name of the org (the first one)")
        parser.add_argument("--data", help="data directory of the site (./data)")

    def handle(self, *_args: Any, **options: Any) -> None:
        local_access.require_running_site()
        access = local_access.grant(options["org"], token_name="deploy", lifetime=TOKEN_LIFETIME)
        client = SiteClient(access.api_url, access.access_token, access.org.public_id)
        machine: str = options["machine"]
        try:
            code = bundling.bundle(options["file"])
            to_version = options["to"] or client.current_version(machine)
            if to_version is None:
                raise CommandError(f"{machine} has no current version: say --to")
            from_version = options["from"] or _version_before(client, machine, to_version)
            migration = client.publish_migration(machine, code, from_version, to_version)
        except (bundling.CannotBundle, ApiError, SiteUnreachable) as exc:
            raise CommandError(str(exc)) from exc
        self.stdout.write(f"The migration {migration} leads from {from_version} to {to_version}.")
        self.stdout.write(UPGRADE_ALL.format(machine=machine, version=to_version))


def _version_before(client: SiteClient, machine: str, version: str) -> str:
    # Newest first. Who migrates to one that is not among the newest 50 will say from where.
    newest = client.request("GET", f"machines/{machine}/v")["versions"]
    ids = [str(listed["id"]) for listed in newest]
    if version not in ids[:-1]:
        raise CommandError(f"There is no version before {version}: say --from")
    return ids[ids.index(version) + 1]
