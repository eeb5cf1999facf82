"""What the engine reads out of the JSON texts that it otherwise passes on unread."""

import json

import msgspec


class _PublicPart(msgspec.Struct):
    public: msgspec.Raw = msgspec.Raw()


_decode_public = msgspec.json.Decoder(_PublicPart).decode


def public_of(context: str) -> str:
    """The text of `context.public`, or an empty one."""
    try:
        return bytes(_decode_public(context).public).decode()
    except msgspec.ValidationError:
        return ""  # the context is not an object


def state_value(state: str) -> str:
    """The value inside `{"state":<value>,"tags":[…],"done":<bool>}`."""
    return json.dumps(json.loads(state)["state"], separators=(",", ":"))


def storable(text: str) -> str:
    """Without what a database refuses: half surrogate pairs and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def error_fields(text: str) -> tuple[str, str, str]:
    """Name, message and stack of an error object as the runner wrote it."""
    try:
        error = json.loads(text)
        fields = [storable(str(error.get(name, ""))) for name in ("name", "message", "stack")]
        return fields[0], fields[1], fields[2]
    except (ValueError, AttributeError):
        return "", storable(text[:2000]), ""
