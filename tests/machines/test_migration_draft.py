"""The draft of a migration, from the definitions of two versions."""

import json
import subprocess

import pytest

from machines.migration_draft import draft_of, gone_states
from machines.models import MachineVersion
from statebacked_site.bundling import esbuild_program
from tests.instances.graphs import definition

HOSTILE = "*/ alert(1) //\n\u2028</textarea>`${1}`"


def graph(*states, root_type="compound"):
    return definition(list(states), [], root_type).graph


def stored(value):
    return json.dumps({"state": value, "tags": [], "done": False})


def version(name="", public_id="ver_1"):
    return MachineVersion(client_info=name, public_id=public_id)


def draft(gone, name="v1"):
    return draft_of("order", version(name), version("v2", "ver_2"), gone)


def test_gone_are_the_innermost_states_that_the_new_version_lacks():
    old = graph(
        ("open", "root", "compound"), ("a", "open"), ("b", "open"), ("done", "root", "final")
    )
    new = graph(
        ("open", "root", "compound"), ("a", "open"), ("c", "open"), ("end", "root", "final")
    )

    gone = gone_states(old, new, {stored({"open": "b"}): 3, stored({"open": "a"}): 7})

    assert [(one.path, one.instances) for one in gone] == [("open.b", 3), ("done", 0)]


def test_a_state_that_holds_others_now_is_not_gone():
    old = graph(("paid", "root"))
    new = graph(("paid", "root", "compound"), ("packed", "paid"))

    assert gone_states(old, new, {}) == []


def test_one_new_state_in_the_place_of_one_gone_is_offered():
    old = graph(("draft", "root"), ("pending", "root"))
    new = graph(("draft", "root"), ("waiting", "root"))

    (gone,) = gone_states(old, new, {})

    assert gone.instead == ("waiting",)
    assert '// return ["waiting"];' in draft([gone])


def test_of_two_new_states_none_is_offered():
    old = graph(("pending", "root"))
    new = graph(("one", "root"), ("two", "root"))

    (gone,) = gone_states(old, new, {})

    assert gone.instead is None


def test_a_state_that_went_elsewhere_under_its_name_is_offered():
    old = graph(("open", "root", "compound"), ("a", "open"), ("b", "open"))
    new = graph(("closed", "root", "compound"), ("b", "closed"), ("x", "closed"))

    found = {one.path: one.instead for one in gone_states(old, new, {})}

    assert found == {"open.a": None, "open.b": ("closed", "b")}


@pytest.mark.parametrize("gone", [None, []])
def test_without_lost_states_every_path_is_kept(gone):
    assert "return path;" in draft(gone)
    assert "throw" not in draft(gone)


@pytest.mark.parametrize("key", ["pending", "a.b", HOSTILE, "\u202e", '"', "'"])
def test_draft_is_a_module_whatever_states_are_called(key):
    gone = gone_states(graph((key, "root")), graph(("x", "root")), {})

    text = draft(gone, name=HOSTILE)

    command = [str(esbuild_program()), "--format=cjs"]
    built = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert "upgradeState" in built.stdout
    assert "upgradeContext" in built.stdout
    assert "\u202e" not in text
    assert text.count("alert(1)") <= text.count("// Upgrades") + text.count("case") * 2
