"""The pages of a machine's instances, below /o/<org>/machines/<machine>/."""

from django.urls import path

from instances.views import acting, detail, listing, upgrading

INSTANCES = "o/<str:org>/machines/<str:machine>/instances"
INSTANCE = f"{INSTANCES}/<str:instance>"

VERSION = "o/<str:org>/machines/<str:machine>/versions/<str:version>"

urlpatterns = [
    path(INSTANCES, listing.instances_page, name="instances-page"),
    path(INSTANCE, detail.instance_page, name="instance-page"),
    path(f"{INSTANCE}/moment", detail.instance_moment, name="instance-moment"),
    path(f"{INSTANCE}/timeline", detail.instance_timeline, name="instance-timeline"),
    path(f"{INSTANCE}/rows", detail.instance_rows, name="instance-rows"),
    path(f"{INSTANCE}/unheeded/<int:note>", detail.instance_reason, name="instance-reason"),
    path(f"{INSTANCE}/send", acting.instance_send, name="instance-send"),
    path(f"{INSTANCE}/pause", acting.instance_pause, name="instance-pause"),
    path(f"{INSTANCE}/delete", acting.instance_delete, name="instance-delete"),
    path(f"{INSTANCE}/upgrade", acting.instance_upgrade, name="instance-upgrade"),
    path(f"{INSTANCE}/timers/<int:timer>", acting.instance_timer, name="instance-timer"),
    path(f"{VERSION}/upgrade", upgrading.upgrade_page, name="upgrade-page"),
    path(f"{VERSION}/upgrade/sample", upgrading.upgrade_sample, name="upgrade-sample"),
]
