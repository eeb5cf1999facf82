"""The engine as the management API sees it, without runners: what it was asked, and canned answers.

Import `fake_door` into a test module to use the fixture.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from django.http import HttpRequest, HttpResponse, JsonResponse

from instances import lean
from instances.engine import door
from instances.engine.holding import Resume
from instances.models import Instance
from instances.runtime.bundle import BundleInfo


def accept(source: bytes) -> BundleInfo:
    return BundleInfo(
        commonjs=f"/* from {len(source)} bytes */", externals=[], xstate_major=5, warnings=[]
    )


@dataclass
class FakeDoor:
    check: Callable[[bytes], BundleInfo] = accept
    calls: list[tuple[str, object]] = field(default_factory=list)

    def check_bundle(self, source: bytes) -> BundleInfo:
        self.calls.append(("check_bundle", source))
        return self.check(source)

    def check_migration(self, source: bytes) -> BundleInfo:
        self.calls.append(("check_migration", source))
        return self.check(source)

    def instance_outdated(self, instance_id: int) -> None:
        self.calls.append(("instance_outdated", instance_id))

    def instances_outdated(self, keys: list[tuple[int, str]]) -> None:
        self.calls.append(("instances_outdated", keys))

    def set_status(self, instance_id: int, status: int, timers: Resume = Resume.ORIGINAL) -> bool:
        how = (timers,) if timers else ()
        self.calls.append(("set_status", (instance_id, status, *how)))
        return Instance.objects.filter(pk=instance_id).update(status=status) == 1

    def delete_instance(self, instance_id: int) -> bool:
        self.calls.append(("delete_instance", instance_id))
        return Instance.objects.filter(pk=instance_id).delete()[0] > 0

    def version_published(self, machine_id: int) -> None:
        self.calls.append(("version_published", machine_id))

    def key_deleted(self, public_id: str) -> None:
        self.calls.append(("key_deleted", public_id))

    def token_revoked(self) -> None:
        self.calls.append(("token_revoked", None))

    def respond(self, request: HttpRequest, **names: object) -> HttpResponse:
        """In the place of the event path (instances/lean.py)."""
        self.calls.append(("respond", names))
        return JsonResponse({"ts": 1, "state": "idle", "tags": [], "done": False})


@pytest.fixture
def fake_door(monkeypatch: pytest.MonkeyPatch) -> FakeDoor:
    fake = FakeDoor()
    for name in (
        "check_bundle",
        "check_migration",
        "instance_outdated",
        "instances_outdated",
        "set_status",
        "delete_instance",
        "version_published",
        "key_deleted",
        "token_revoked",
    ):
        monkeypatch.setattr(door, name, getattr(fake, name))
    monkeypatch.setattr(lean, "respond", fake.respond)
    return fake
