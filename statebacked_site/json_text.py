"""JSON in and out: strict about what comes in, exact about what was stored.

Customers' JSON lies in the database as text, as the runner wrote it. It goes out the same way,
never parsed: so no number, key order, escaped surrogate or depth of nesting can change or fail.
"""

from typing import Any

import msgspec

JsonText = msgspec.Raw

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


class MalformedJson(ValueError):
    """The text is not JSON, or holds what we can't keep: half a surrogate pair, endless nesting."""


def parse_json(text: bytes | str) -> Any:
    """`text` as Python values; NaN, lone surrogates and absurd numbers are refused.

    Raises MalformedJson.
    """
    try:
        return _decoder.decode(text)
    except RecursionError as exc:
        raise MalformedJson("It is nested too deeply") from exc
    except ValueError as exc:
        raise MalformedJson(str(exc)) from exc


def write_json(value: Any) -> bytes:
    """`value` as JSON; a `JsonText` inside it goes out as it is."""
    return _encoder.encode(value)


def stored_json(text: str) -> JsonText:
    """A stored JSON text, to be put into an answer as it is."""
    return JsonText(text.encode())
