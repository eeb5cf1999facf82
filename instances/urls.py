"""The pages of a machine's instances, below /o/<org>/machines/<machine>/."""

from django.urls import path

from instances import views

INSTANCES = "o/<str:org>/machines/<str:machine>/instances"
INSTANCE = f"{INSTANCES}/<str:instance>"

urlpatterns = [
    path(INSTANCES, views.instances_page, name="instances-page"),
    path(INSTANCE, views.instance_page, name="instance-page"),
    path(f"{INSTANCE}/moment", views.instance_moment, name="instance-moment"),
    path(f"{INSTANCE}/timeline", views.instance_timeline, name="instance-timeline"),
    path(f"{INSTANCE}/rows", views.instance_rows, name="instance-rows"),
    path(f"{INSTANCE}/send", views.instance_send, name="instance-send"),
    path(f"{INSTANCE}/pause", views.instance_pause, name="instance-pause"),
    path(f"{INSTANCE}/delete", views.instance_delete, name="instance-delete"),
    path(f"{INSTANCE}/timers/<int:timer>", views.instance_timer, name="instance-timer"),
]
