"""The pages of a machine's schedules, below /o/<org>/machines/<machine>/."""

from django.urls import path

from machines.schedules import views

SCHEDULES = "o/<str:org>/machines/<str:machine>/schedules"

urlpatterns = [
    path(SCHEDULES, views.schedules_page, name="schedules-page"),
    path(f"{SCHEDULES}/new", views.schedule_form, name="new-schedule"),
    path(f"{SCHEDULES}/runs", views.schedule_runs, name="schedule-runs"),
    path(f"{SCHEDULES}/<str:schedule>", views.schedule_form, name="schedule-page"),
    path(f"{SCHEDULES}/<str:schedule>/act", views.schedule_act, name="schedule-act"),
]
