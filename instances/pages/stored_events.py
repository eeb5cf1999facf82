"""What a stored event says of itself and its sender, also where only its beginning is kept."""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from instances.pages.words import cut

NAME_CHARS_MAX = 60  # of senders, actions, services and timers

_TYPE = re.compile(r'"type"\s*:\s*("(?:[^"\\]|\\.)*")')


class _EventType(msgspec.Struct):
    type: str = ""


_decode_type = msgspec.json.Decoder(_EventType).decode


def event_type_of(event: str) -> str:
    """The type of a stored event, also if the text was cut off somewhere behind it."""
    try:
        return _decode_type(event).type
    except (msgspec.MsgspecError, UnicodeEncodeError):
        match = _TYPE.search(event)
        return json.loads(match[1]) if match else "(large event)"


def who(auth_context: str) -> str:
    """The sender in a word or two: their `sub`, and their role if they have one."""
    claims = claims_of(auth_context)
    named = [
        str(claims[name])
        for name in ("sub", "role")
        if isinstance(claims.get(name), str | int) and claims[name] != ""
    ]
    if named or not claims:
        return cut(", ".join(named), NAME_CHARS_MAX)
    name, value = next(iter(claims.items()))
    return cut(f"{name}={value}" if isinstance(value, str | int) else name, NAME_CHARS_MAX)


def claims_of(auth_context: str) -> Mapping[str, Any]:
    claims = json.loads(auth_context) if auth_context else {}
    return claims if isinstance(claims, dict) else {}
