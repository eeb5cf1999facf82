"""The checker's part about upgrades (I10)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from instances.engine.operations import SETTLED, Kind
from instances.engine.store import DONE
from tests.instances.engine.simulation import versions
from tests.instances.engine.simulation.database import (
    DELETED,
    Delivered,
    Desire,
    Instance,
    Transition,
)
from tests.instances.engine.simulation.machine import Json, Step

if TYPE_CHECKING:
    from tests.instances.engine.simulation.checker import Checker, Place
    from tests.instances.engine.simulation.life import Client, Request

EXTERNAL = (Kind.CLIENT, Kind.TIMER, Kind.MESSAGE)
# Errors that come of processing an event, and are told only if the state was the latest.
PROCESSED = ("RejectedByAuthorizer", "MachineThrew")


class Upgrades:
    def __init__(self, checker: Checker) -> None:
        self.checker = checker
        self.database = checker.database
        self.say = checker._say

    # ------------------------------------------------------------------ while a history is replayed

    def step(self, t: Transition, context: Json, version: int) -> Step:
        """The step of an upgrade from `version`, computed anew."""
        to_version = t.values["version_id"]
        migrations = versions.path(version, to_version)
        description = versions.describe(context, version)
        return versions.upgrade(context, migrations, description, to_version)

    def check_version(
        self, name: str, instance: Instance, t: Transition, before: Transition | None
    ) -> None:
        """A step has the version of the one before it, or is an upgrade from that."""
        version = t.values["version_id"]
        if before is None:
            return
        was, children = before.values["version_id"], before.children
        desired = _desired_at(instance, t.at)
        if t.values["kind"] != Kind.UPGRADE:
            if version != was:
                self.say(f"I10 {name}: step {t.seq} on version {version} instead of {was}")
            # A batch that upgrades and goes on is one moment.
            if t.values["kind"] in EXTERNAL and children == SETTLED and desired not in (None, was):
                self.say(f"I10 {name}: step {t.seq} on {version}, though {desired} was desired")
            return
        if children != SETTLED:
            self.say(f"I10 {name}: upgrade {t.seq} while services ran: {children}")
        if before.values["state"].endswith(DONE):
            self.say(f"I10 {name}: upgrade {t.seq} after its end")
        if desired != version:
            self.say(f"I10 {name}: upgrade {t.seq} to {version}, and {desired} was desired")
        event = json.loads(t.values["event"])
        names = {"from": versions.name_of(was), "to": versions.name_of(version)}
        if event != {"type": "statebacked.upgrade", **names}:
            self.say(f"I10 {name}: upgrade {t.seq} says {event}")

    def check_end(self, name: str, instance: Instance) -> None:
        """What the row says is what the history says."""
        version = instance.history[-1].values["version_id"]
        if instance.values["version_id"] != version:
            self.say(f"I10 {name}: on version {instance.values['version_id']}, not {version}")
        if instance.values["desired_version_id"] == version:
            self.say(f"I10 {name}: its own version is desired")

    def check_renamed(
        self,
        name: str,
        t: Transition,
        n: int,
        effect: Json,
        waiting: dict[str, list[Place]],
        books: dict[Place, Delivered],
    ) -> bool:
        """A timer goes on under another name: at its time, with its attempts. If there is one."""
        place = (t.seq, n)
        old = None
        for other in reversed(waiting[effect["id"]]):
            book = books.get(other)
            if book is not None and (book.ended_at is None or book.ended_at >= t.at):
                old = book
                waiting[effect["id"]].remove(other)
                break
        new = books.get(place)
        if old is None:
            if new is not None:
                self.say(f"I7 {name}: upgrade {t.seq} has brought back timer {effect['id']}")
            return False
        waiting[effect["to"]].append(place)
        if new is None or old.end not in ("renamed", "deleted"):
            self.say(f"I7 {name}: upgrade {t.seq} did not keep timer {effect['id']}")
        elif new.planned_ms != old.values["due_at"] or new.failures[: len(old.failures)] != (
            old.failures
        ):
            self.say(f"I7 {name}: upgrade {t.seq} has changed timer {effect['id']}")
        return True

    # ------------------------------------------------------------------ what clients were told

    def check_request(self, name: str, client: Client, request: Request) -> None:
        """What begins after a desired version was acknowledged, and finds the instance settled, is
        not processed on the old one: neither applied, nor ignored, nor refused."""
        error = type(request.error).__name__ if request.error is not None else ""
        if request.outcome == "ok":
            is_processed = client.what != "create" and not request.is_replayed
        else:
            is_processed = request.outcome == "error" and error in PROCESSED
        if not is_processed or self.checker.has_clock_steps:
            return
        sent_at, answered_at = request.sent_at, request.answered_at or 0
        for instance in self.checker._instances(client):
            before = [t for t in instance.history if t.at <= sent_at]
            desires = [d for d in instance.desires if d.at <= answered_at]
            if not before or not desires or _is_dead_at(instance, answered_at):
                continue
            latest = desires[-1]
            if latest.version is None or latest.acknowledged_at > sent_at:
                continue
            is_settled = before[-1].children == SETTLED
            if not is_settled or before[-1].values["state"].endswith(DONE):
                continue
            upgrades = [t.at for t in instance.history if t.values["kind"] == Kind.UPGRADE]
            if not any(latest.at <= at <= answered_at for at in upgrades):
                self.say(f"I10 {name}: answered before the upgrade to {latest.version}")

    def may_fail(self, instance: Instance, start: float, end: float) -> bool:
        """Whether within that time an upgrade was desired that may fail."""
        desires = instance.desires
        return any(
            desire.at <= end and _until(desires, n) >= start and _may_fail(instance, desire)
            for n, desire in enumerate(desires)
        )


def _may_fail(instance: Instance, desire: Desire) -> bool:
    versions_then = [t.values["version_id"] for t in instance.history if t.at <= desire.at]
    if desire.version is None or not versions_then:
        return False
    return versions.THROWS in versions.path(versions_then[-1], desire.version)


def _is_dead_at(instance: Instance, at: float) -> bool:
    return any(status == DELETED and died < at for died, status in instance.statuses)


def _until(desires: list[Desire], n: int) -> float:
    return desires[n + 1].at if n + 1 < len(desires) else float("inf")


def _desired_at(instance: Instance, at: float) -> int | None:
    """The desired version of the row just before."""
    desired, since = None, 0.0
    for desire in instance.desires:
        if desire.at < at:
            desired, since = desire.version, desire.at
    for t in instance.history:
        if t.values["kind"] == Kind.UPGRADE and since <= t.at < at:
            return None
    return desired
