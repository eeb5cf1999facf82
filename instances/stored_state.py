"""The state of an instance as the runner wrote it: `{"state": …, "tags": […], "done": …}`."""

import msgspec

from statebacked_site.json_text import JsonText


class StoredState(msgspec.Struct):
    state: JsonText
    tags: JsonText
    done: bool


_decoder = msgspec.json.Decoder(StoredState)


def parse_state(stored: str) -> StoredState:
    return _decoder.decode(stored)
