"""The rows of the instances page, at a cost that does not grow with the number of instances.

What events change (state, latest time) has no index, since every event would pay for it. So

  few    up to WINDOW instances: all of them are looked at, every filter and order is exact
  many   filters by state and version alone go by the *places* that follow the instances
         (instances/places.py). Other combinations take a window: the next SCAN instances in the
         order of an index are filtered, and the page says how far it has looked and goes on there

With a name given, only the instances whose name begins with it count.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from django.db.models import Count, Q, QuerySet

from instances import places
from instances.access import instances_of
from instances.models import Instance
from instances.pages.words import Leaf, leaves_of, version_name
from machines.models import Machine, MachineVersion
from statebacked_site import base64url
from statebacked_site.errors import InvalidParameter
from statebacked_site.json_text import parse_json, write_json

ROWS = 50
WINDOW = 10_000
SCAN = 20_000
KINDS_MAX = 200  # of places, that are read off their index at once
VERSIONS_OFFERED = 50
STATES_OFFERED = 200
CURSOR_LENGTH_MAX = 512

# By the name in the URL: the fields, and whether an index has that order.
ORDERS = {
    "created": (("-id",), True),
    "-created": (("id",), True),
    "name": (("slug",), True),
    "-name": (("-slug",), True),
    "updated": (("-ts", "-id"), False),
    "-updated": (("ts", "id"), False),
}
STATUSES = {"running": Instance.Status.RUNNING, "paused": Instance.Status.PAUSED}


@dataclass(frozen=True)
class Filter:
    """What the page's URL asks for; an empty text asks for nothing."""

    text: str = ""  # beginning of the name
    state: str = ""  # path of an active state: a leaf or one that holds it
    status: str = ""
    version: str = ""  # public id
    order: str = "created"

    @property
    def is_narrow(self) -> bool:
        return bool(self.text or self.state or self.status or self.version)


class Row(NamedTuple):
    slug: str
    leaves: list[Leaf]
    is_paused: bool
    is_done: bool
    version: str
    desired: str  # the version that it is to have before its next event, or empty
    created_ms: int
    updated_ms: int


class StateCount(NamedTuple):
    path: str
    instances: int


@dataclass(frozen=True)
class Listing:
    rows: list[Row]
    filter: Filter
    cursor: str | None  # None: there is nothing after these rows
    total: int  # of all instances with such a name; of many with a name at most WINDOW + 1
    matching: int | None  # None: not all were looked at
    is_large: bool
    is_exact: bool  # the numbers; else they are about right
    looked_at: int  # in the window; 0: what was found was found without looking at others
    states: list[StateCount]  # parents before children
    versions: list[MachineVersion]


class Kind(NamedTuple):
    """Instances in the same place."""

    state_id: int
    state: str  # as it is stored
    version_id: int
    instances: int


def list_instances(machine: Machine, asked: Filter, cursor: str | None) -> Listing:
    """One page. Raises InvalidParameter for a cursor, status, version or order there is none of."""
    if asked.order not in ORDERS:
        raise InvalidParameter(f"There is no order {asked.order[:20]!r}", "sort")
    if asked.status and asked.status not in STATUSES:
        raise InvalidParameter("The status is running or paused", "status")
    versions = list(
        MachineVersion.objects.filter(machine=machine).order_by("-id")[:VERSIONS_OFFERED]
    )
    version = _version(machine, asked)
    named = _named(instances_of(machine), asked.text)
    total = named.values("pk")[: WINDOW + 1].count()
    if total <= WINDOW:
        return _list_few(named, asked, cursor, total, version, versions)
    return _list_many(machine, named, _indexed_order(asked), cursor, version, versions)


def _list_few(
    named: QuerySet[Instance],
    asked: Filter,
    cursor: str | None,
    total: int,
    version: MachineVersion | None,
    versions: list[MachineVersion],
) -> Listing:
    # Few names of many instances: found by name first, in whatever order they are shown.
    window = Instance.objects.filter(pk__in=named.values("pk")) if asked.text else named
    states = dict(_counted_states(window))
    matching = _matching(window, asked, version, states)
    found, next_cursor = _page(_after(matching, asked, cursor), asked, None)
    return Listing(
        rows=[_row(instance) for instance in found],
        filter=asked,
        cursor=next_cursor,
        total=total,
        matching=matching.count(),
        is_large=False,
        is_exact=True,
        looked_at=total,
        states=_tree(states),
        versions=versions,
    )


def _list_many(
    machine: Machine,
    named: QuerySet[Instance],
    asked: Filter,
    cursor: str | None,
    version: MachineVersion | None,
    versions: list[MachineVersion],
) -> Listing:
    kinds = [
        Kind(state_id, state, version_id, instances)
        for _, state_id, state, version_id, instances in places.counts([machine.pk])
    ]
    is_exact = places.are_exact()
    states: Counter[str] = Counter()
    for kind in kinds:
        states[kind.state] += kind.instances
    chosen = _chosen(kinds, asked, version)
    matching: int | None = None
    looked_at = 0
    if not asked.is_narrow:
        found, next_cursor = _page(_after(named, asked, cursor), asked, None)
        matching = states.total()
    elif chosen is not None and is_exact:
        found, next_cursor = _placed(chosen, asked, version, cursor)
        matching = sum(kind.instances for kind in chosen)
    else:
        window, window_end = _window(_with_status(named, asked), asked, cursor)
        # What instances are in now: counts may be a second old.
        seen = dict(_counted_states(window))
        looked_at = sum(seen.values())
        found, next_cursor = _page(_matching(window, asked, version, seen), asked, window_end)
    return Listing(
        rows=[_row(instance) for instance in found],
        filter=asked,
        cursor=next_cursor,
        total=WINDOW + 1 if asked.text else max(states.total(), WINDOW + 1),
        matching=matching,
        is_large=True,
        is_exact=is_exact,
        looked_at=looked_at,
        states=_tree(states),
        versions=versions,
    )


def _version(machine: Machine, asked: Filter) -> MachineVersion | None:
    if not asked.version:
        return None
    version = MachineVersion.objects.filter(machine=machine, public_id=asked.version).first()
    if version is None:
        raise InvalidParameter("The machine has no such version", "version")
    return version


def _page(
    matching: QuerySet[Instance], asked: Filter, window_end: str | None
) -> tuple[list[Instance], str | None]:
    """The next instances, and the cursor for those after them."""
    found = list(_with_version(matching).order_by(*ORDERS[asked.order][0])[: ROWS + 1])
    if len(found) <= ROWS:
        return found, window_end
    found.pop()
    return found, _cursor_after(found[-1], asked)


def _with_version(instances: QuerySet[Instance]) -> QuerySet[Instance]:
    """With what a row shows, and not their data."""
    return instances.select_related("version", "desired_version").only(
        "slug", "state", "status", "ts", "created_at",
        "version__client_info", "version__public_id",
        "desired_version__client_info", "desired_version__public_id",
    )  # fmt: skip


def _chosen(kinds: list[Kind], asked: Filter, version: MachineVersion | None) -> list[Kind] | None:
    """The places that the filters ask for; None if places can't tell."""
    if asked.text or asked.status or asked.order.lstrip("-") != "created":
        return None
    in_state = {
        state: not asked.state or is_in_state(state, asked.state)
        for state in {kind.state for kind in kinds}
    }
    chosen = [
        kind
        for kind in kinds
        if in_state[kind.state] and (version is None or kind.version_id == version.pk)
    ]
    return chosen if len(chosen) <= KINDS_MAX else None


def _placed(
    chosen: list[Kind], asked: Filter, version: MachineVersion | None, cursor: str | None
) -> tuple[list[Instance], str | None]:
    """Instances by their places. One that has moved since is left out: a page may be short."""
    ids = places.newest(
        [(kind.state_id, kind.version_id) for kind in chosen],
        ROWS + 1,
        after=_values(cursor, ("id",))[0] if cursor else None,
        oldest_first=asked.order.startswith("-"),
    )
    more = len(ids) > ROWS
    ids = ids[:ROWS]
    states = {kind.state for kind in chosen}
    found = [
        instance
        for instance in _with_version(Instance.objects.filter(pk__in=ids)).order_by(
            *ORDERS[asked.order][0]
        )
        if instance.status != Instance.Status.DELETED
        and (not asked.state or instance.state in states)
        and (version is None or instance.version_id == version.pk)
    ]
    return found, base64url.encode(write_json([ids[-1]])) if more else None


def _with_status(instances: QuerySet[Instance], asked: Filter) -> QuerySet[Instance]:
    """Those that are paused have an index: a window of them is a window of what is asked for."""
    if asked.status == "paused" and not asked.text:
        return instances.filter(status=Instance.Status.PAUSED)
    return instances


def newest_id(machine: Machine) -> int:
    """Of the instance that was created last; 0 if there is none."""
    return instances_of(machine).order_by("-pk").values_list("pk", flat=True).first() or 0


def _indexed_order(asked: Filter) -> Filter:
    """Of very many, only what an index has in order can be listed; of names, by name."""
    if asked.text and asked.order.lstrip("-") != "name":
        return replace(asked, order="name")
    if not ORDERS[asked.order][1]:
        return replace(asked, order="created")
    return asked


def _named(instances: QuerySet[Instance], beginning: str) -> QuerySet[Instance]:
    """A range of the slug index, not LIKE: that needs an index of its own in Postgres."""
    if not beginning:
        return instances
    return instances.filter(slug__gte=beginning, slug__lt=beginning + "\U0010ffff")


def _window(
    named: QuerySet[Instance], asked: Filter, cursor: str | None
) -> tuple[QuerySet[Instance], str | None]:
    """The instances to filter, and where the next window begins.

    It is a range of the key that is ordered by, which both databases read off its index; a
    subquery with a limit would make Postgres look at all rows.
    """
    (order,) = ORDERS[asked.order][0]
    field = order.lstrip("-")
    before, behind = ("gte", "lte") if order.startswith("-") else ("lte", "gte")
    window = _after(named, asked, cursor)
    first = window.order_by(order).only("slug").first()
    if first is None:
        return window, None
    # Bounded on both sides, else each of the queries passes over all that other machines have.
    window = window.filter(**{f"{field}__{behind}": getattr(first, field)})
    last = window.order_by(order).only("slug")[SCAN - 1 : SCAN].first()
    if last is None:
        return window, None
    end = {f"{field}__{before}": getattr(last, field)}
    return window.filter(**end), _cursor_after(last, asked)


def _counted_states(window: QuerySet[Instance]) -> list[tuple[str, int]]:
    return list(window.values_list("state").annotate(count=Count("pk")).order_by())


def _matching(
    window: QuerySet[Instance],
    asked: Filter,
    version: MachineVersion | None,
    states: dict[str, int],
) -> QuerySet[Instance]:
    matching = window
    if asked.status:
        matching = matching.filter(status=STATUSES[asked.status])
    if version is not None:
        matching = matching.filter(version=version)
    if asked.state:
        matching = matching.filter(
            state__in=[stored for stored in states if is_in_state(stored, asked.state)]
        )
    return matching


def is_in_state(stored_state: str, path: str) -> bool:
    """Whether the state at `path` is active: as a leaf, or since it holds one."""
    inside = f"{path}."
    return any(
        leaf.path == path or leaf.path.startswith(inside) for leaf in leaves_of(stored_state)
    )


def _tree(states: dict[str, int]) -> list[StateCount]:
    counts: Counter[tuple[str, ...]] = Counter()
    for stored, count in states.items():
        paths: set[tuple[str, ...]] = set()
        for leaf in leaves_of(stored):
            keys = tuple(_split(leaf.path))
            paths.update(keys[: depth + 1] for depth in range(len(keys)))
        for path in paths:
            counts[path] += count
    return [StateCount(".".join(path), counts[path]) for path in sorted(counts)[:STATES_OFFERED]]


def _split(path: str) -> list[str]:
    """The keys of a path, still escaped."""
    keys = path.replace("\\.", "\0").split(".")
    return [key.replace("\0", "\\.") for key in keys]


def _row(instance: Instance) -> Row:
    return Row(
        slug=instance.slug,
        leaves=leaves_of(instance.state),
        is_paused=instance.status == Instance.Status.PAUSED,
        is_done=instance.state.endswith('"done":true}'),
        version=version_name(instance.version),
        desired=version_name(desired) if (desired := instance.desired_version) else "",
        created_ms=instance.created_at,
        updated_ms=instance.ts,
    )


# --- Cursors: the order's values of the last instance that was looked at ------------------------


def _cursor_after(instance: Instance, asked: Filter) -> str:
    fields = ORDERS[asked.order][0]
    return base64url.encode(write_json([getattr(instance, f.lstrip("-")) for f in fields]))


def _after(instances: QuerySet[Instance], asked: Filter, cursor: str | None) -> QuerySet[Instance]:
    if not cursor:
        return instances
    fields = ORDERS[asked.order][0]
    values = _values(cursor, fields)
    lookup = "lt" if fields[0].startswith("-") else "gt"
    first = fields[0].lstrip("-")
    condition = Q(**{f"{first}__{lookup}": values[0]})
    if len(fields) == 2:
        second = fields[1].lstrip("-")
        condition |= Q(**{first: values[0], f"{second}__{lookup}": values[1]})
    return instances.filter(condition)


def _values(cursor: str, fields: tuple[str, ...]) -> list[Any]:
    """They are not signed: they can only move within the list."""
    kinds = [str if field.lstrip("-") == "slug" else int for field in fields]
    try:
        values = parse_json(base64url.decode(cursor[:CURSOR_LENGTH_MAX]))
    except ValueError:
        values = None
    if (
        not isinstance(values, list)
        or [type(value) for value in values] != kinds
        or any(isinstance(value, str) and "\0" in value for value in values)
        or any(isinstance(value, int) and abs(value) >= 2**63 for value in values)
    ):
        raise InvalidParameter("The cursor is none that this list has given", "after")
    return values
