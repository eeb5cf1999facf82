"""Every address of the site."""

from django.urls import include, path

from authz.api import KeysView, KeyView, OrgsView
from authz.views import account, delete_key, keys_page, sign_in, sign_in_link, sign_out
from instances.api import (
    DesiredVersionView,
    EventsView,
    InstanceAdminView,
    InstancesView,
    InstanceView,
    LogsView,
    StatusView,
    UpgradesView,
)
from instances.dead_letters_api import DeadLettersView, DeadLetterView, RedriveView
from machines.api import (
    CodeUploadView,
    MachinesView,
    MachineView,
    MigrationsView,
    ProvisionalMigrationView,
    ProvisionalVersionView,
    VersionsView,
)
from machines.migration_views import (
    migration_file,
    migration_page,
    migrations_page,
    new_migration,
)
from machines.schedules.api import SchedulesView, ScheduleView
from machines.views import (
    deploy_page,
    machine_page,
    machine_settings,
    machine_thumb,
    machines_page,
    new_machine,
    version_diagram,
    version_export,
    version_page,
    version_picture,
    versions_page,
)
from statebacked_site.api import SchemaView
from statebacked_site.pages.attention import attention_page, letter_action
from statebacked_site.pages.home import home, org_home
from statebacked_site.pages.logs import logs_page
from statebacked_site.pages.search import palette
from statebacked_site.pages.theme import theme
from statebacked_site.pages.timers import timer_action, timers_page

MACHINE = "api/machines/<str:machine>"
INSTANCE = f"{MACHINE}/i/<str:instance>"

OF_ORG = "o/<str:org>"
OF_MACHINE = f"{OF_ORG}/machines/<str:machine>"
OF_VERSION = f"{OF_MACHINE}/versions/<str:version>"

pages = [
    path("", home, name="home"),
    # The names are those that django-allauth asks for.
    path("sign-in", sign_in, name="account_login"),
    path("sign-in/<str:token>", sign_in_link, name="sign-in-link"),
    path("sign-out", sign_out, name="account_logout"),
    path("account", account, name="account"),
    path("theme", theme, name="theme"),
    path(OF_ORG, org_home, name="org-home"),
    path(f"{OF_ORG}/palette", palette, name="palette"),
    path(f"{OF_ORG}/machines", machines_page, name="machines-page"),
    path(f"{OF_ORG}/new-machine", new_machine, name="new-machine"),
    path(OF_MACHINE, machine_page, name="machine-page"),
    path(f"{OF_MACHINE}/deploy", deploy_page, name="deploy-page"),
    path(f"{OF_MACHINE}/thumb", machine_thumb, name="machine-thumb"),
    path(f"{OF_MACHINE}/settings", machine_settings, name="machine-settings"),
    path(f"{OF_MACHINE}/versions", versions_page, name="versions-page"),
    path(OF_VERSION, version_page, name="version-page"),
    path(f"{OF_VERSION}/diagram", version_diagram, name="version-diagram"),
    path(f"{OF_VERSION}/picture", version_picture, name="version-picture"),
    path(f"{OF_VERSION}/export.<str:kind>", version_export, name="version-export"),
    path(f"{OF_MACHINE}/migrations", migrations_page, name="migrations-page"),
    path(f"{OF_MACHINE}/new-migration", new_migration, name="new-migration"),
    path(f"{OF_MACHINE}/migrations/<str:migration>", migration_page, name="migration-page"),
    path(f"{OF_MACHINE}/migrations/<str:migration>/code.js", migration_file, name="migration-file"),
    path("", include("instances.urls")),
    path("", include("machines.schedules.urls")),
    path(f"{OF_ORG}/timers", timers_page, name="timers-page"),
    path(f"{OF_ORG}/timers/<int:timer>", timer_action, name="timer-action"),
    path(f"{OF_ORG}/attention", attention_page, name="attention-page"),
    path(f"{OF_ORG}/attention/<int:letter>", letter_action, name="letter-action"),
    path(f"{OF_ORG}/logs", logs_page, name="logs-page"),
    path(f"{OF_ORG}/keys", keys_page, name="keys-page"),
    path(f"{OF_ORG}/keys/<str:key>/delete", delete_key, name="delete-key"),
]

api = [
    path("api/orgs", OrgsView.as_view(), name="orgs"),
    path("api/keys", KeysView.as_view(), name="keys"),
    path("api/keys/<str:key>", KeyView.as_view(), name="key"),
    path("api/machines", MachinesView.as_view(), name="machines"),
    path(MACHINE, MachineView.as_view(), name="machine"),
    path(f"{MACHINE}/v", VersionsView.as_view(), name="versions"),
    path(f"{MACHINE}/v/<str:version>", ProvisionalVersionView.as_view(), name="version"),
    path(f"{MACHINE}/migrations", MigrationsView.as_view(), name="migrations"),
    path(
        f"{MACHINE}/migrations/<str:migration>",
        ProvisionalMigrationView.as_view(),
        name="migration",
    ),
    path(f"{MACHINE}/i", InstancesView.as_view(), name="instances"),
    path(INSTANCE, InstanceView.as_view(), name="instance"),
    path(f"{INSTANCE}/admin", InstanceAdminView.as_view(), name="instance-admin"),
    path(f"{INSTANCE}/events", EventsView.as_view(), name="events"),
    path(f"{INSTANCE}/status", StatusView.as_view(), name="instance-status"),
    path(f"{INSTANCE}/v", DesiredVersionView.as_view(), name="desired-version"),
    path(f"{MACHINE}/upgrades", UpgradesView.as_view(), name="upgrades"),
    path(f"{MACHINE}/schedules", SchedulesView.as_view(), name="schedules"),
    path(f"{MACHINE}/schedules/<str:schedule>", ScheduleView.as_view(), name="schedule"),
    path("api/logs", LogsView.as_view(), name="logs"),
    path("api/dead-letters", DeadLettersView.as_view(), name="dead-letters"),
    path("api/dead-letters/<str:letter>", DeadLetterView.as_view(), name="dead-letter"),
    path("api/dead-letters/<str:letter>/deliveries", RedriveView.as_view(), name="redrive"),
    path("api/uploads/<str:upload>", CodeUploadView.as_view(), name="code-upload"),
    path("api/schema", SchemaView.as_view(), name="schema"),
]

urlpatterns = [*pages, *api]

handler400 = "statebacked_site.errors.bad_request"
handler403 = "statebacked_site.errors.permission_denied"
handler404 = "statebacked_site.errors.page_not_found"
handler429 = "statebacked_site.errors.too_many_requests"
handler500 = "statebacked_site.errors.server_error"
