"""Every page of the site, in one place: what is checked and pictured is this list.

A page that is not listed here fails tests/browser/test_every_page.py.
"""

from dataclasses import dataclass
from urllib.parse import quote

from tests.browser.content import ADMIN, HOSTILE, LONER, LONG_NAME, READER, Filled

NOBODY = ""  # signed out


@dataclass(frozen=True)
class Page:
    label: str
    url_name: str  # of the pattern that answers it; empty for what no pattern does
    path: str  # {org}, {key}, {version:<machine>} … stand for what a site has: see path_of
    who: str = ADMIN
    status: int = 200
    waits_for: str = "main"  # there when the page is complete
    presses: str = ""  # keys that show what is to be looked at


ORDER = "/o/{org}/machines/order"
APPROVAL = "/o/{org}/machines/approval"
BAD = "/o/{org}/machines/hostile"
DIAGRAM = "svg .flow-state, .flow svg, img.picture"

PAGES = (
    Page("sign-in", "account_login", "/sign-in", NOBODY),
    Page("sign-in-link", "sign-in-link", "{link}", NOBODY),
    Page("sign-in-link-invalid", "sign-in-link", "/sign-in/unknown", NOBODY, 410),
    Page("no-org", "home", "/", LONER),
    Page("account", "account", "/account"),
    Page("account-without-org", "account", "/account", LONER),
    Page("not-found", "", "/nothing", status=404),
    Page("not-found-in-org", "machine-page", "/o/{org}/machines/none", status=404),
    Page("home", "org-home", "/o/{org}"),
    Page("home-first", "org-home", "/o/{empty}"),
    Page("home-hostile", "org-home", "/o/{hostile}"),
    Page("palette", "org-home", "/o/{org}", presses="Control+k", waits_for="#palette[open]"),
    Page("shortcuts", "org-home", "/o/{org}", presses="?", waits_for="#shortcuts[open]"),
    Page("machines", "machines-page", "/o/{org}/machines"),
    Page("machines-filtered", "machines-page", "/o/{org}/machines?q=nothing-like-it"),
    Page("machines-first", "machines-page", "/o/{empty}/machines"),
    Page("machines-reader", "machines-page", "/o/{org}/machines", READER),
    Page("new-machine", "new-machine", "/o/{org}/new-machine"),
    Page("machine", "machine-page", ORDER, waits_for=DIAGRAM),
    Page("machine-hostile", "machine-page", BAD, waits_for=DIAGRAM),
    Page("machine-without-version", "machine-page", "/o/{org}/machines/bare"),
    Page("deploy", "deploy-page", f"{ORDER}/deploy"),
    Page("machine-settings", "machine-settings", f"{ORDER}/settings"),
    Page("schedules-first", "schedules-page", f"{ORDER}/schedules"),
    Page("schedules-hostile", "schedules-page", f"{BAD}/schedules"),
    Page("schedules-reader", "schedules-page", f"{BAD}/schedules", READER),
    Page("new-schedule", "new-schedule", f"{ORDER}/schedules/new"),
    Page("schedule", "schedule-page", BAD + "/schedules/{schedule}"),
    Page("versions", "versions-page", f"{ORDER}/versions"),
    Page("versions-hostile", "versions-page", f"{BAD}/versions"),
    Page("versions-reader", "versions-page", f"{ORDER}/versions", READER),
    Page("version", "version-page", ORDER + "/versions/{version:order}", waits_for=DIAGRAM),
    Page("version-code", "version-page", BAD + "/versions/{version:hostile}?view=code"),
    Page("versions-upgradable", "versions-page", f"{APPROVAL}/versions"),
    Page(
        "upgrade-version",
        "upgrade-page",
        APPROVAL + "/versions/{old:approval}/upgrade",
        waits_for="a.mono.name",
    ),
    Page(
        "upgrade-version-reader",
        "upgrade-page",
        APPROVAL + "/versions/{old:approval}/upgrade",
        READER,
    ),
    Page(
        "upgrade-version-hostile",
        "upgrade-page",
        BAD + "/versions/{old:hostile}/upgrade",
        waits_for=".top-row",
    ),
    Page(
        "upgrade-version-current", "upgrade-page", APPROVAL + "/versions/{version:approval}/upgrade"
    ),
    Page(
        "upgrade-version-no-way",
        "upgrade-page",
        "/o/{org}/machines/toggler/versions/{old:toggler}/upgrade",
    ),
    Page("migrations", "migrations-page", f"{APPROVAL}/migrations"),
    Page("migrations-hostile", "migrations-page", f"{BAD}/migrations"),
    Page("migrations-reader", "migrations-page", f"{APPROVAL}/migrations", READER),
    Page("migrations-first", "migrations-page", "/o/{org}/machines/toggler/migrations"),
    Page("migrations-one-version", "migrations-page", f"{ORDER}/migrations"),
    Page("migration", "migration-page", APPROVAL + "/migrations/{migration:approval}"),
    Page("migration-hostile", "migration-page", BAD + "/migrations/{migration:hostile}"),
    Page("new-migration", "new-migration", f"{APPROVAL}/new-migration"),
    Page("new-migration-hostile", "new-migration", f"{BAD}/new-migration"),
    Page("new-migration-reader", "new-migration", f"{APPROVAL}/new-migration", READER),
    Page("new-migration-one-version", "new-migration", f"{ORDER}/new-migration"),
    Page("instances", "instances-page", f"{ORDER}/instances"),
    Page("instances-hostile", "instances-page", f"{BAD}/instances"),
    Page("instances-filtered", "instances-page", f"{ORDER}/instances?q=nothing-like-it"),
    Page("instances-first", "instances-page", "/o/{org}/machines/bare/instances"),
    Page("instance", "instance-page", f"{ORDER}/instances/order-1001", waits_for=DIAGRAM),
    Page(
        "instance-reader",
        "instance-page",
        f"{ORDER}/instances/order-1002",
        READER,
        waits_for=DIAGRAM,
    ),
    Page("instance-past", "instance-page", f"{ORDER}/instances/order-1001?at=2", waits_for=DIAGRAM),
    Page("instance-context", "instance-page", f"{ORDER}/instances/order-1001?tab=context"),
    Page("instance-timers", "instance-page", f"{ORDER}/instances/order-1002?tab=timers"),
    Page("instance-logs", "instance-page", f"{BAD}/instances/{LONG_NAME}?tab=logs"),
    Page("instance-raw", "instance-page", f"{ORDER}/instances/order-1001?tab=raw"),
    Page(
        "instance-send",
        "instance-page",
        f"{ORDER}/instances/order-1002",
        presses="e",
        waits_for="#send [name=event]",
    ),
    Page(
        "upgrade",
        "instance-page",
        f"{APPROVAL}/instances/trip-to-lisbon",
        presses="u",
        waits_for="#upgrade [name=version]",
    ),
    Page(
        "upgrade-reader",
        "instance-page",
        f"{APPROVAL}/instances/trip-to-lisbon",
        READER,
        waits_for=DIAGRAM,
    ),
    Page("upgrade-pending", "instance-page", f"{APPROVAL}/instances/pending", waits_for=DIAGRAM),
    Page("upgrade-done", "instance-page", f"{APPROVAL}/instances/upgraded", waits_for=DIAGRAM),
    Page("upgrade-past", "instance-page", f"{APPROVAL}/instances/upgraded?at=1", waits_for=DIAGRAM),
    Page(
        "upgrade-hostile",
        "instance-page",
        f"{BAD}/instances/{LONG_NAME}",
        presses="u",
        waits_for="#upgrade [name=version]",
    ),
    Page("instance-hostile", "instance-page", f"{BAD}/instances/{LONG_NAME}", waits_for=DIAGRAM),
    Page(
        "instance-hostile-context", "instance-page", f"{BAD}/instances/{LONG_NAME}?tab=context&at=9"
    ),
    Page("instance-not-found", "instance-page", f"{ORDER}/instances/order-1", status=404),
    Page("timers", "timers-page", "/o/{org}/timers"),
    Page("timers-filtered", "timers-page", "/o/{org}/timers?q=nothing-like-it"),
    Page("timers-first", "timers-page", "/o/{empty}/timers"),
    Page("attention", "attention-page", "/o/{org}/attention"),
    Page("attention-reader", "attention-page", "/o/{org}/attention", READER),
    Page("attention-first", "attention-page", "/o/{empty}/attention"),
    Page("logs", "logs-page", "/o/{org}/logs"),
    Page("logs-filtered", "logs-page", "/o/{org}/logs?q=nothing-like-it"),
    Page("logs-hostile-filter", "logs-page", f"/o/{{org}}/logs?q={quote(HOSTILE)}"),
    Page("logs-first", "logs-page", "/o/{empty}/logs"),
    Page("keys", "keys-page", "/o/{org}/keys"),
    Page("keys-new", "keys-page", "/o/{org}/keys?new=1"),
    Page("keys-delete", "keys-page", "/o/{org}/keys?delete={key}"),
    Page("keys-first", "keys-page", "/o/{empty}/keys"),
    Page("keys-reader", "keys-page", "/o/{org}/keys", READER),
)

# What answers a part of a page, a file, or a form.
NO_PAGES = {
    "account_logout",
    "theme",
    "palette",
    "machine-thumb",
    "version-diagram",
    "version-picture",
    "version-export",
    "instance-moment",
    "instance-timeline",
    "instance-rows",
    "instance-reason",
    "instance-send",
    "instance-pause",
    "instance-delete",
    "instance-upgrade",
    "instance-timer",
    "migration-file",
    "upgrade-sample",
    "schedule-runs",
    "schedule-act",
    "timer-action",
    "letter-action",
    "delete-key",
}


def path_of(page: Page, site: Filled) -> str:
    path = page.path.replace("{org}", site.server.org_id).replace("{empty}", site.empty_org)
    path = path.replace("{hostile}", site.hostile_org).replace("{key}", site.key)
    path = path.replace("{schedule}", site.schedule)
    for machine, version in site.versions.items():
        path = path.replace(f"{{version:{machine}}}", version)
        path = path.replace(f"{{old:{machine}}}", site.old_versions.get(machine, version))
    for machine, migration in site.migrations.items():
        path = path.replace(f"{{migration:{machine}}}", migration)
    return path.replace("{link}", site.sign_in_link(READER)) if "{link}" in path else path
