"""The pins, the ranges and the lock file of the checkout belong together."""

import json
import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import PROJECT_ROOT


def pins(name):
    lines = (PROJECT_ROOT / name).read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line[:1].isalnum()]
    return {canonicalize_name(item.name): item for item in requirements}


def ranges():
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    runtime = [Requirement(text) for text in project["dependencies"]]
    development = [Requirement(text) for text in project["optional-dependencies"]["dev"]]
    return runtime, development


def test_each_range_is_pinned_inside_it():
    runtime, development = ranges()
    runtime_pins = pins("requirements.txt")
    all_pins = runtime_pins | pins("requirements-dev.txt")

    for allowed, pinned in [(runtime, runtime_pins), (development, all_pins)]:
        for requirement in allowed:
            (pin,) = pinned[canonicalize_name(requirement.name)].specifier
            assert pin.operator == "=="
            assert requirement.specifier.contains(pin.version), requirement


def test_every_pin_is_exact():
    for requirement in [*pins("requirements.txt").values(), *pins("requirements-dev.txt").values()]:
        assert re.fullmatch(r"==[0-9][^,*]*", str(requirement.specifier)), requirement


def test_lock_file_names_no_host():
    lock = json.loads((PROJECT_ROOT / "package-lock.json").read_bytes())

    packages = [package for path, package in lock["packages"].items() if path]
    assert packages
    assert all("resolved" not in package for package in packages)
    assert all(package["integrity"].startswith("sha512-") for package in packages)


def test_lock_file_belongs_to_the_manifest():
    manifest = json.loads((PROJECT_ROOT / "package.json").read_bytes())
    root = json.loads((PROJECT_ROOT / "package-lock.json").read_bytes())["packages"][""]

    assert root["dependencies"] == manifest["dependencies"]
    assert root["devDependencies"] == manifest["devDependencies"]
