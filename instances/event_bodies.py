"""What clients send to the event path: checked, and brought to one line of JSON text.

Events and contexts are never decoded into Python values: the grammar is checked, the type of the
event looked at, and the text goes to the runner and the history as it is.
"""

import re

import msgspec

from statebacked_site.errors import InvalidParameter
from statebacked_site.identifiers import SLUG

DEPTH_MAX = 64
REQUEST_KEY_LENGTH_MAX = 255
RESERVED_EVENTS = ("xstate.", "done.invoke.", "error.platform.", "statebacked.")


class _EventBody(msgspec.Struct):
    event: msgspec.Raw


class _EventType(msgspec.Struct):
    type: str


class _CreateBody(msgspec.Struct, rename="camel"):
    slug: str
    context: msgspec.Raw = msgspec.Raw(b"{}")
    machine_version_id: str | None = None


_decode_event_body = msgspec.json.Decoder(_EventBody).decode
_decode_event_type = msgspec.json.Decoder(_EventType).decode
_decode_create_body = msgspec.json.Decoder(_CreateBody).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_WHITE_SPACE = bytes.maketrans(b"\n\r\t", b"   ")
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')


def parse_event(body: bytes) -> str:
    """The event of a request as one line of JSON text. Raises InvalidParameter."""
    try:
        raw = bytes(_decode_event_body(body).event)
        raw.decode()  # the decoder checks the grammar but not the UTF-8 of what it skips
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidParameter(f'The body must be JSON {{"event": …}}: {exc}', "event") from exc
    if raw[:1] == b'"':
        raw = b'{"type":%b}' % raw  # an event without payload may be its type alone
    _check_depth(raw, "event")
    try:
        event_type = _decode_event_type(raw).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidParameter(
            "The event must be a string, or an object with a string `type`", "event"
        ) from exc
    if event_type.startswith(RESERVED_EVENTS):
        raise InvalidParameter(
            f"Events named {event_type[:64]} belong to XState or the platform", "event"
        )
    return _one_line(raw)


def parse_create(body: bytes) -> tuple[str, str, str | None]:
    """(slug, context as one line of JSON text, public id of a version or None)."""
    try:
        request = _decode_create_body(body)
        context = bytes(request.context)
        context.decode()
        if context == b"null":
            context = b"{}"
        _check_depth(context, "context")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidParameter(f'The body must be JSON {{"slug", "context"?}}: {exc}') from exc
    try:
        _decode_object(context)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidParameter(f"The context must be an object: {exc}", "context") from exc
    if SLUG.match(request.slug) is None:
        raise InvalidParameter(
            "A slug has 1 to 128 letters, digits, underscores and dashes", "slug"
        )
    return request.slug, _one_line(context), request.machine_version_id


def parse_request_key(value: bytes) -> str:
    """The value of an Idempotency-Key header."""
    text = value.decode("latin-1")
    if not text or len(text) > REQUEST_KEY_LENGTH_MAX or not text.isprintable():
        raise InvalidParameter(
            f"Idempotency-Key must have 1 to {REQUEST_KEY_LENGTH_MAX} printable characters",
            "Idempotency-Key",
        )
    return text


def _one_line(raw: bytes) -> str:
    # Only white space between tokens can be there: strings with raw control characters are refused.
    if b"\n" in raw or b"\t" in raw or b"\r" in raw:
        raw = raw.translate(_WHITE_SPACE)
    return raw.decode()


def _check_depth(raw: bytes, parameter: str) -> None:
    if raw.count(b"{") + raw.count(b"[") <= DEPTH_MAX:
        return
    depth = 0
    for byte in _STRINGS.sub(b"", raw):
        if byte in b"{[":
            depth += 1
            if depth > DEPTH_MAX:
                raise InvalidParameter(f"It is nested deeper than {DEPTH_MAX} levels", parameter)
        elif byte in b"}]":
            depth -= 1
