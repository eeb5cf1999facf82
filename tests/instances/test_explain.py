"""Why an event did nothing, or was refused."""

import msgspec
import pytest

from instances.explain import claims_text, why_refused, why_unchanged
from machines.flow.model import Invocation
from tests.instances.graphs import definition, event, order_definition, parallel_definition

ORDER = order_definition()


def why(event_type, value="draft", **more):
    return why_unchanged(ORDER, value, event_type, **({"is_done": False} | more))


def test_event_of_another_state_names_it():
    assert why("pay") == "`pay` is not handled in `draft`; it is handled in `placed`."


def test_event_of_no_state_says_so():
    assert why("fly") == "`fly` is not handled by any state of this version."


def test_guard_that_was_false_is_named():
    assert why("place") == "Guard `hasStock` was false."


def test_event_that_is_to_be_ignored_is_meant_so():
    assert why("ping") == "`draft` says that `ping` is to be ignored there."


def test_handled_event_without_effect_is_told_apart():
    assert why("note", "placed") == (
        "`note` is handled in `placed`, but it changed neither the state nor the context."
    )


def test_event_of_an_ancestor_is_handled():
    assert "is handled in" in why("cancel")


def test_machine_that_is_done_takes_no_events():
    assert "final state" in why("pay", "paid", is_done=True)


def test_services_that_run_are_named():
    assert why("pay", services=["charge"]).endswith(
        "The instance has not settled: it waits for the service `charge`."
    )


def test_all_regions_of_a_parallel_state_are_named():
    value = {"delivery": "sent", "payment": "captured"}

    text = why_unchanged(parallel_definition(), value, "capture", is_done=False)

    assert text == (
        "`capture` is not handled in `delivery.sent` and `payment.captured`;"
        " it is handled in `payment.open`."
    )


def test_without_a_definition_only_the_state_is_told():
    assert why_unchanged(None, "draft", "pay", is_done=False) == "`pay` changed nothing in `draft`."


def test_quotation_can_not_be_ended_by_a_name():
    assert why("a`<b>`") == "`aˋ<b>ˋ` is not handled by any state of this version."


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("rejected-by-machine-authorizer", "no", "Denied by `allowWrite` for `sub=u_17`."),
        ("machine-error", "TypeError: x", "event: `TypeError: x`"),
        ("too-many-events", "too many events wait", "Too many events wait."),
    ],
)
def test_refusals_have_a_reason(code, message, expected):
    assert expected in why_refused(code, message, {"sub": "u_17"}, "order-1")


def test_paused_instance_is_named():
    text = why_refused("invalid-state", "order-1 is paused", {}, "order-1")

    assert text == "`order-1` is paused: it takes no events until somebody resumes it."

    text = why_refused("invalid-state", "", {}, "order-1", paused_at=1_700_000_000_000)

    assert "is paused since 14 Nov 2023, 22:13:20 UTC" in text


def test_claims_are_bounded():
    claims = {f"claim{n}": "x" * 1_000 for n in range(50)}

    assert len(claims_text(claims)) < 250
    assert claims_text({}) == "somebody without claims"


def test_events_are_sorted_by_where_they_are_handled():
    handled = {handling.event_type for handling in ORDER.handling("placed")}

    assert handled == {"pay", "note", "cancel"}
    assert ORDER.handled_in("pay") == ["placed"]
    assert ORDER.events() == ["place", "ping", "pay", "note", "cancel"]


@pytest.mark.parametrize(
    ("before", "event_type", "after", "number"),
    [
        ("draft", "place", "placed", 0),
        ("placed", "note", "placed", 3),
        ("placed", "x", "paid", None),
    ],
)
def test_transition_that_was_taken_is_found(before, event_type, after, number):
    assert ORDER.taken(before, event_type, after) == number


def test_states_that_an_upgrade_leaves_without_their_beginning_are_named():
    new = definition(
        [("idle", "root"), ("charging", "root"), ("passing", "root")],
        [event("passing", "", "idle", kind="always")],
    )
    states = new.graph.states
    states[2] = msgspec.structs.replace(states[2], invoke=[Invocation("charge", "chargeCard")])

    assert new.not_begun("paying", "charging") == [("charging", "invoke")]
    assert new.not_begun("paying", "passing") == [("passing", "always")]
    assert new.not_begun("paying", "idle") == []
    assert new.not_begun("charging", "charging") == []
