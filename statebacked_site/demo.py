"""`up --demo`: the examples, deployed, with a few instances in different states."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NotRequired, TypedDict

from django.conf import settings
from django.core.management.base import CommandError

from statebacked_site import bundling, local_access
from statebacked_site.site_client import ApiError, SiteClient, SiteUnreachable

EXAMPLES_DIRECTORY = "machines/examples"
INSTANCES_FILE = "demo.json"
TOKEN_LIFETIME = timedelta(hours=1)


class DemoEvent(TypedDict):
    """An event, and who sends it."""

    authContext: dict[str, object]
    event: dict[str, object]


class DemoInstance(TypedDict):
    """One instance of machines/examples/demo.json, which maps machine slugs to lists of these."""

    slug: str
    authContext: dict[str, object]  # of who creates it
    context: NotRequired[dict[str, object]]
    events: NotRequired[list[DemoEvent]]


def start(write: Callable[[str], object]) -> None:
    """Fill the site that this process serves, beside the server's own work."""
    threading.Thread(target=_fill, args=[write], name="demo", daemon=True).start()


def _fill(write: Callable[[str], object]) -> None:
    try:
        access = local_access.grant(None, token_name="demo", lifetime=TOKEN_LIFETIME)
        client = SiteClient(access.api_url, access.access_token, access.org.public_id)
        machines, instances = fill(client, settings.BASE_DIR / EXAMPLES_DIRECTORY)
    except (bundling.CannotBundle, ApiError, SiteUnreachable, CommandError) as exc:
        write(f"  The demo is not complete: {exc}\n")
    else:
        write(f"  The demo is ready: {machines} machines, {instances} new instances\n")


def fill(client: SiteClient, examples: Path) -> tuple[int, int]:
    """Deploy every example that is new and create its instances; returns how many of both.

    Safe to call again: what is there already stays as it is.
    """
    plan: dict[str, list[DemoInstance]] = json.loads((examples / INSTANCES_FILE).read_bytes())
    created = 0
    sources = sorted(examples.glob("*.ts"))
    for source in sources:
        machine = bundling.machine_slug(source)
        if client.create_machine(machine):
            client.publish_version(machine, bundling.bundle(source), client_info=source.name)
        created += sum(_create_instance(client, machine, item) for item in plan.get(machine, []))
    return len(sources), created


def _create_instance(client: SiteClient, machine: str, instance: DemoInstance) -> bool:
    """Create one instance and send it its events; False if it exists already."""
    body = {"slug": instance["slug"], "context": instance.get("context", {})}
    try:
        client.request("POST", f"machines/{machine}", body, instance["authContext"])
    except ApiError as exc:
        if exc.status == 409:
            return False
        raise
    events_path = f"machines/{machine}/i/{instance['slug']}/events"
    for item in instance.get("events", []):
        client.request("POST", events_path, {"event": item["event"]}, item["authContext"])
    return True
