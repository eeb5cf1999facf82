"""Schedules: a machine's instances are created, or get an event, at times that a cron line says."""
