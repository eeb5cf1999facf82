"""Pages of lists. A cursor says after which item the next page begins, so that a page costs the
same however deep it lies, and items that come and go shift nothing."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from django.db.models import Model, QuerySet

from statebacked_site import base64url
from statebacked_site.errors import InvalidParameter
from statebacked_site.json_text import parse_json, write_json

PAGE_SIZE = 50
CURSOR_LENGTH_MAX = 512
KEY_MAX = 2**63 - 1  # of an integer column

Item = TypeVar("Item", bound=Model)


class Page(NamedTuple):
    items: list[Any]
    cursor: str | None  # None: this is the last page

    def body(self, name: str, to_json: Callable[[Any], Any]) -> dict[str, Any]:
        """The answer: the items under `name`, and the cursor while there are more."""
        body: dict[str, Any] = {name: [to_json(item) for item in self.items]}
        if self.cursor is not None:
            body["cursor"] = self.cursor
        return body


def page_of(queryset: QuerySet[Item], order: str, cursor: str | None) -> Page:
    """The page after `cursor` of `queryset` in the order of a unique field, such as `-id`.

    Raises InvalidParameter for a cursor that no earlier page has given.
    """
    field = order.removeprefix("-")
    if cursor:
        lookup = f"{field}__lt" if order.startswith("-") else f"{field}__gt"
        queryset = queryset.filter(**{lookup: key_of(cursor, str if field == "slug" else int)})
    items = list(queryset.order_by(order)[: PAGE_SIZE + 1])
    if len(items) <= PAGE_SIZE:
        return Page(items, None)
    items.pop()
    return Page(items, cursor_of(getattr(items[-1], field)))


def cursor_of(key: str | int) -> str:
    return base64url.encode(write_json([key]))


def key_of(cursor: str, kind: type[str] | type[int]) -> str | int:
    """The key that `cursor_of` was given. It is not signed: it can only move within the list."""
    try:
        match parse_json(base64url.decode(cursor[:CURSOR_LENGTH_MAX])):
            case [str(key)] if kind is str and "\0" not in key:
                return key
            case [int(key)] if kind is int and type(key) is int and 0 <= key <= KEY_MAX:
                return key
    except ValueError:
        pass
    raise InvalidParameter("The cursor is none that this list has given", "cursor")
