"""The body of a provisional migration: two ids, around which the published client sends all code.

It has megabytes then, since the client writes gzipped code as `{"0": 31, "1": 139, …}`. What is not
asked for here is skipped over, and takes no memory.
"""

from typing import Any, ClassVar

import msgspec

from statebacked_site.api import JSON_BODY_BYTES_MAX, JsonParser
from statebacked_site.errors import TooLarge
from statebacked_site.json_text import MalformedJson, parse_json

# 1 MB of gzipped code has less than 14 MB as the client writes it. No request may have more.
MIGRATION_BODY_BYTES_MAX = 16 * 1024 * 1024

_ABSENT = msgspec.Raw(b"null")


class _Wanted(msgspec.Struct, rename="camel"):
    from_machine_version_id: msgspec.Raw = _ABSENT
    to_machine_version_id: msgspec.Raw = _ABSENT


_decoder = msgspec.json.Decoder(_Wanted)


class MigrationParser(JsonParser):
    bytes_max: ClassVar[int] = MIGRATION_BODY_BYTES_MAX

    def parse_json(self, body: bytes) -> Any:
        try:
            wanted = msgspec.structs.asdict(_decoder.decode(body))
        except RecursionError as exc:
            raise MalformedJson("It is nested too deeply") from exc
        except ValueError as exc:
            raise MalformedJson(str(exc)) from exc
        texts = {outward: bytes(wanted[name]) for name, outward in _OUTWARD.items()}
        if sum(map(len, texts.values())) > JSON_BODY_BYTES_MAX:
            raise TooLarge("The ids are no ids: they are too large")
        return {name: parse_json(text) for name, text in texts.items()}


_OUTWARD = {field.name: field.encode_name for field in msgspec.structs.fields(_Wanted)}
