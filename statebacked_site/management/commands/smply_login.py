"""Signs the published CLI in to this site."""

import json
import os
import time
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from statebacked_site import local_access

LIFETIME = timedelta(days=365)


class Command(BaseCommand):
    help = "Sign smply in to this site: write ~/.smply/credentials and the default org."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--org", help="id or name of the org (the first one)")
        parser.add_argument("--data", help="data directory of the site (./data)")

    def handle(self, *_args: Any, **options: Any) -> None:
        access = local_access.grant(options["org"], token_name="smply", lifetime=LIFETIME)
        # smply looks there and nowhere else, and in the working directory without a HOME.
        directory = Path(os.environ.get("HOME", ".")) / ".smply"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(directory / "credentials", json.dumps(_session(access)))
        _write_private(directory / "default-org", access.org.public_id)
        self.stdout.write(
            f"smply is signed in as {access.user.email}; the default org is {access.org.public_id}."
            # Without the older TypeScript, npm gives smply one that it cannot use.
            "\n\n  npx -p smply@0.1.18 -p typescript@5 smply machines list"
            f" --api-url {access.api_url}"
        )


def _session(access: local_access.LocalAccess) -> dict[str, Any]:
    """The session as supabase-js keeps it. Before `expires_at` it never asks another server."""
    lifetime_s = int(LIFETIME.total_seconds())
    return {
        "access_token": access.access_token,
        "refresh_token": "none",
        "token_type": "bearer",
        "expires_in": lifetime_s,
        "expires_at": int(time.time()) + lifetime_s,
        "user": {
            "id": access.user.public_id,
            "email": access.user.email,
            "aud": "authenticated",
            "role": "authenticated",
            "app_metadata": {},
            "user_metadata": {},
            "created_at": access.user.created_at.isoformat(),
        },
    }


def _write_private(path: Path, text: str) -> None:
    """Replace `path` by a file that only its owner can read."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
