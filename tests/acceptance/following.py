"""What clients/following.mjs must have heard, wherever it ran."""

from typing import Any

DENIED = {"status": 403, "code": "rejected-by-machine-authorizer"}
MISSING = {"status": 404, "code": "not-found"}


def assert_followed(seen: dict[str, Any]) -> None:
    assert seen["first"] == ["off", 0]
    # An actor may tell of its present state first, and of one state twice; it never goes back.
    states = [item for i, item in enumerate(seen["heard"]) if item not in seen["heard"][:i]]
    assert states[-2:] == [["on", 1], ["off", 2]]
    assert [count for _, count in seen["heard"]] == sorted(count for _, count in seen["heard"])
    assert seen["again"] == "off"
    assert seen["got"] == {"toggleCount": 2}
    assert seen["rung"][0] == "idle"
    assert seen["rung"][-1] == "rung"
    assert seen["told"] == [7]
    assert seen["denied"] == seen["actorDenied"] == DENIED
    assert seen["missing"] == seen["actorMissing"] == MISSING
