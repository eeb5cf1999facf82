"""Environment variables as typed values; a wrong one stops the start and is named."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Value = TypeVar("Value")

DURATION_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
SIZE_UNITS_BYTES = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KIB": 1024,
    "MIB": 1024**2,
    "GIB": 1024**3,
}
TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off"})


class InvalidVariable(Exception):
    """An environment variable holds what its setting cannot use; the message names it."""


class Environment:
    """Reads settings from `variables` and remembers their names for the documentation test.

    A variable that is empty counts as not set: container tools often pass it so.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.names: set[str] = set()

    def text(self, name: str, default: str, *, length_min: int = 0) -> str:
        """The variable as it is, without white space around it."""

        def parse(text: str) -> str:
            if len(text) < length_min:
                raise ValueError(f"must have at least {length_min} characters")
            return text

        # The text may be a secret: the message must not repeat it.
        return self._read(name, parse, default, show=False)

    def words(self, name: str) -> list[str]:
        """Words separated by commas or spaces; none when not set."""
        return self._read(name, split_words, [])

    def integer(self, name: str, default: int, *, minimum: int, maximum: int) -> int:
        def parse(text: str) -> int:
            if re.fullmatch(r"-?[0-9]+", text) is None:
                raise ValueError("is not a whole number")
            return bounded(int(text), minimum, maximum)

        return self._read(name, parse, default)

    def boolean(self, name: str, default: bool) -> bool:
        return self._read(name, parse_boolean, default)

    def duration(
        self, name: str, default: timedelta, *, minimum: timedelta, maximum: timedelta
    ) -> timedelta:
        """A time span such as `90s`, `1.5h` or `7d`."""

        def parse(text: str) -> timedelta:
            return bounded(parse_duration(text), minimum, maximum)

        return self._read(name, parse, default)

    def size(self, name: str, default: int, *, minimum: int, maximum: int) -> int:
        """A number of bytes such as `512MiB` or `1 GB`."""

        def parse(text: str) -> int:
            return bounded(parse_size(text), minimum, maximum)

        return self._read(name, parse, default)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        def parse(text: str) -> str:
            if text.upper() not in choices:
                raise ValueError(f"must be one of {', '.join(choices)}")
            return text.upper()

        return self._read(name, parse, default)

    def networks(self, name: str) -> tuple[Network, ...]:
        """Addresses and networks in CIDR form, separated by commas or spaces."""
        return self._read(name, parse_networks, ())

    def url(self, name: str) -> str | None:
        """An http(s) address without a path, or None when not set."""
        return self._read(name, parse_url, None)

    def listen_address(self, name: str, default: tuple[str, int]) -> tuple[str, int]:
        """Host and port to listen on, such as `0.0.0.0:8001`; port 0 is any free one."""
        return self._read(name, parse_listen_address, default)

    def path(self, name: str, default: Path) -> Path:
        """An absolute path; a relative one starts at the working directory."""
        return self._read(name, parse_path, default)

    def _read(
        self, name: str, parse: Callable[[str], Value], default: Value, *, show: bool = True
    ) -> Value:
        self.names.add(name)
        text = self._variables.get(name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as exc:
            shown = f" ({text!r})" if show else ""
            raise InvalidVariable(f"{name}{shown} {exc}") from exc


def split_words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def parse_boolean(text: str) -> bool:
    if text.lower() in TRUE_WORDS:
        return True
    if text.lower() in FALSE_WORDS:
        return False
    raise ValueError("must be true or false")


def parse_duration(text: str) -> timedelta:
    """`text` as a time span; raises ValueError if it has no unit or is no number."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)", text)
    if match is None:
        raise ValueError("is not a duration such as 500ms, 90s, 15m, 2h or 7d")
    try:
        return timedelta(milliseconds=float(match[1]) * DURATION_UNITS_MS[match[2]])
    except OverflowError:
        raise ValueError("is too long") from None


def parse_size(text: str) -> int:
    """`text` as a number of bytes; raises ValueError if it has no unit or is no number."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMG]I?B|B)", text.upper())
    if match is None:
        raise ValueError("is not a size such as 512MiB or 2GB")
    return int(float(match[1]) * SIZE_UNITS_BYTES[match[2]])


def parse_networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(word) for word in split_words(text))


def parse_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an address such as https://statebacked.example.com")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise ValueError("must be scheme, host and port only, such as https://sb.example.com")
    if parts.port == 0:
        raise ValueError("has a port that cannot be reached")
    return f"{parts.scheme}://{parts.netloc}"


def parse_listen_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError("must be host and port such as 0.0.0.0:8001")
    return host, int(port)


def parse_path(text: str) -> Path:
    return Path(text).expanduser().absolute()


Ordered = TypeVar("Ordered", int, timedelta)


def bounded(value: Ordered, minimum: Ordered, maximum: Ordered) -> Ordered:
    if not minimum <= value <= maximum:
        raise ValueError(f"must be between {minimum} and {maximum}")
    return value
