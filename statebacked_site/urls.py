"""Every address of the site."""

from django.urls import path

from authz.api import KeysView, KeyView, OrgsView
from authz.views import account, sign_in, sign_in_link, sign_out
from instances.api import (
    EventsView,
    InstanceAdminView,
    InstancesView,
    InstanceView,
    LogsView,
    StatusView,
)
from machines.api import (
    CodeUploadView,
    MachinesView,
    MachineView,
    ProvisionalVersionView,
    VersionsView,
)
from statebacked_site.api import SchemaView
from statebacked_site.pages.home import home, org_home
from statebacked_site.pages.search import palette
from statebacked_site.pages.theme import theme

MACHINE = "api/machines/<str:machine>"
INSTANCE = f"{MACHINE}/i/<str:instance>"

pages = [
    path("", home, name="home"),
    path("sign-in", sign_in, name="sign-in"),
    path("sign-in/<str:token>", sign_in_link, name="sign-in-link"),
    path("sign-out", sign_out, name="sign-out"),
    path("account", account, name="account"),
    path("theme", theme, name="theme"),
    path("o/<str:org>", org_home, name="org-home"),
    path("o/<str:org>/palette", palette, name="palette"),
]

api = [
    path("api/orgs", OrgsView.as_view(), name="orgs"),
    path("api/keys", KeysView.as_view(), name="keys"),
    path("api/keys/<str:key>", KeyView.as_view(), name="key"),
    path("api/machines", MachinesView.as_view(), name="machines"),
    path(MACHINE, MachineView.as_view(), name="machine"),
    path(f"{MACHINE}/v", VersionsView.as_view(), name="versions"),
    path(f"{MACHINE}/v/<str:version>", ProvisionalVersionView.as_view(), name="version"),
    path(f"{MACHINE}/i", InstancesView.as_view(), name="instances"),
    path(INSTANCE, InstanceView.as_view(), name="instance"),
    path(f"{INSTANCE}/admin", InstanceAdminView.as_view(), name="instance-admin"),
    path(f"{INSTANCE}/events", EventsView.as_view(), name="events"),
    path(f"{INSTANCE}/status", StatusView.as_view(), name="instance-status"),
    path("api/logs", LogsView.as_view(), name="logs"),
    path("api/uploads/<str:upload>", CodeUploadView.as_view(), name="code-upload"),
    path("api/schema", SchemaView.as_view(), name="schema"),
]

urlpatterns = [*pages, *api]

handler400 = "statebacked_site.errors.bad_request"
handler403 = "statebacked_site.errors.permission_denied"
handler404 = "statebacked_site.errors.page_not_found"
handler500 = "statebacked_site.errors.server_error"
