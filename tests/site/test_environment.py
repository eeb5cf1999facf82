from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from statebacked_site.environment import Environment, InvalidVariable, parse_duration, parse_size


def test_unset_and_empty_variables_give_the_default():
    env = Environment({"EMPTY": "  "})

    assert env.integer("MISSING", 7, minimum=0, maximum=9) == 7
    assert env.integer("EMPTY", 7, minimum=0, maximum=9) == 7
    assert env.url("EMPTY") is None
    assert env.networks("EMPTY") == ()
    assert env.path("EMPTY", Path("/data")) == Path("/data")


def test_names_of_all_variables_are_remembered():
    env = Environment({"A": "1"})

    env.boolean("A", False)
    env.words("B")

    assert env.names == {"A", "B"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("90s", timedelta(seconds=90)),
        ("1.5 h", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
    ],
)
def test_duration_has_a_unit(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["90", "s", "-1s", "1 week", "9" * 30 + "d"])
def test_duration_without_sense_is_refused(text):
    with pytest.raises(ValueError, match=r"not a duration|too long"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10B", 10),
        ("1 KB", 1000),
        ("1KiB", 1024),
        ("512mib", 512 * 1024**2),
        ("1.5GB", 1_500_000_000),
    ],
)
def test_size_has_a_unit(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["10", "GB", "1 TBB", "-1MB"])
def test_size_without_sense_is_refused(text):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def test_networks_are_addresses_and_blocks_of_both_kinds():
    env = Environment({"N": "10.0.0.0/8, 192.168.1.7 fd00::/8"})

    assert env.networks("N") == (
        ip_network("10.0.0.0/8"),
        ip_network("192.168.1.7/32"),
        ip_network("fd00::/8"),
    )


def test_path_is_absolute_and_knows_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    env = Environment({"P": "~/data dir", "Q": "here"})

    assert env.path("P", Path()) == Path("/home/ada/data dir")
    assert env.path("Q", Path()) == Path.cwd() / "here"


def test_url_is_kept_without_a_slash_at_the_end():
    env = Environment({"U": "https://sb.example.com:8443/"})

    assert env.url("U") == "https://sb.example.com:8443"


READERS = {
    "integer": lambda env: env.integer("X", 1, minimum=1, maximum=10),
    "boolean": lambda env: env.boolean("X", False),
    "duration": lambda env: env.duration(
        "X", timedelta(), minimum=timedelta(seconds=1), maximum=timedelta(hours=1)
    ),
    "size": lambda env: env.size("X", 1, minimum=1, maximum=1000),
    "choice": lambda env: env.choice("X", "FULL", ("FULL", "NORMAL")),
    "networks": lambda env: env.networks("X"),
    "url": lambda env: env.url("X"),
}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("integer", "ten"),
        ("integer", "1_0"),
        ("integer", "0"),
        ("integer", "11"),
        ("boolean", "maybe"),
        ("duration", "90"),
        ("duration", "2h"),
        ("size", "2KB"),
        ("choice", "off"),
        ("networks", "10.0.0.1/8"),
        ("networks", "localhost"),
        ("url", "example.com"),
        ("url", "ftp://example.com"),
        ("url", "https://example.com/path"),
        ("url", "https://user@example.com"),
        ("url", "https://example.com:0"),
        ("url", "https://example.com:port"),
    ],
)
def test_wrong_value_names_the_variable_and_the_value(kind, text):
    with pytest.raises(InvalidVariable) as raised:
        READERS[kind](Environment({"X": text}))

    assert str(raised.value).startswith(f"X ({text!r}) ")


def test_wrong_secret_is_named_but_not_shown():
    with pytest.raises(InvalidVariable) as raised:
        Environment({"KEY": "hunter2"}).text("KEY", "", length_min=32)

    assert str(raised.value) == "KEY must have at least 32 characters"


def test_choice_takes_either_case():
    assert Environment({"X": "normal"}).choice("X", "FULL", ("FULL", "NORMAL")) == "NORMAL"
