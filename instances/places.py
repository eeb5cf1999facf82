"""Where instances are: rows to filter by and exact counts, at any number of instances.

Two tables follow the instances. A *place* says in which state and on which version an instance is;
a count says how many places there are of each kind. What moves them:

1. Whoever commits notes the instance and *repairs* its place within two seconds or so
   (place_keeper.py). An instance that came back to where it was is not written.
2. A process that may owe a repair has a row that says so. When it dies, another one, or its next
   start, *sweeps*: it compares all instances with their places. So nothing is counted wrongly for
   good, whatever happened.
3. Place and count change in one transaction, and only one of these runs at a time. A repair reads
   instances after it has got its turn, so a later repair never writes an older state.

Everything here is ordinary synchronous SQL, for any thread but the engine's loop.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connection, transaction

from instances.models import KnownState, PlaceCount, PlaceKeeper

REPAIRED_TOGETHER = 500  # instances, so that no other writer waits long
SWEPT_TOGETHER = 5_000
LOCK_KEY = 7_214_003  # of Postgres's advisory lock: any number that nobody else uses
LEASE_LEFT_MS_MIN = 4_000  # a living node has more than this; see engine/membership.py

# `{among}` is a condition on the id; it is said of both sides of a join, so that neither is read as
# a whole. First what exists and is elsewhere than its place says, then the places of what is gone.
MOVED = """
SELECT i.id FROM instance i LEFT JOIN place p ON p.instance_id = i.id AND p.instance_id {among}
  LEFT JOIN known_state s ON s.id = p.state_id
WHERE i.id {among} AND i.status <> 2
  AND (p.instance_id IS NULL OR p.version_id <> i.version_id OR s.text <> i.state)
UNION ALL
SELECT p.instance_id FROM place p
  LEFT JOIN instance i ON i.id = p.instance_id AND i.status <> 2 AND i.id {among}
WHERE p.instance_id {among} AND i.id IS NULL
"""
STATES = "SELECT DISTINCT machine_id, state FROM instance WHERE id {among} AND status <> 2"
COUNT = """
INSERT INTO place_count (machine_id, state_id, version_id, instances)
SELECT machine_id, state_id, version_id, {sign} COUNT(*) FROM place WHERE instance_id {among}
GROUP BY machine_id, state_id, version_id ORDER BY state_id, version_id
ON CONFLICT (state_id, version_id)
DO UPDATE SET instances = place_count.instances + excluded.instances
"""
LEAVE = "DELETE FROM place WHERE instance_id {among}"
ENTER = """
INSERT INTO place (instance_id, machine_id, state_id, version_id)
SELECT i.id, i.machine_id, s.id, i.version_id FROM instance i
JOIN known_state s ON s.machine_id = i.machine_id AND s.text = i.state
WHERE i.id {among} AND i.status <> 2
"""
# A keeper whose node is gone, or may be.
DOUBTFUL = """
SELECT k.id FROM place_keeper k LEFT JOIN node n ON n.id = k.node_id
WHERE k.is_lost OR n.id IS NULL
  OR n.lease_until < (extract(epoch FROM now()) * 1000)::bigint + %s
"""


def repair(instance_ids: Sequence[int]) -> int:
    """Put the places of these instances right; how many were not. Safe to call twice."""
    repaired = 0
    for first in range(0, len(instance_ids), REPAIRED_TOGETHER):
        ids = _list(instance_ids[first : first + REPAIRED_TOGETHER])
        # Asked without the lock: most instances are where they were.
        moved = _moved(_among(), *[ids] * 4)
        if moved:
            repaired += len(moved)
            _rewrite(_list(moved))
    return repaired


def sweep() -> Iterator[int]:
    """Compare all instances with their places; after each part, how many of it were wrong."""
    ((newest, newest_place),) = _rows(
        "SELECT (SELECT max(id) FROM instance), (SELECT max(instance_id) FROM place)"
    )
    last = max(newest or 0, newest_place or 0)
    for first in range(1, last + 1, SWEPT_TOGETHER):
        part = (first, min(first + SWEPT_TOGETHER - 1, last))
        moved = _moved("BETWEEN %s AND %s", *part * 4)
        # On SQLite other writers wait meanwhile; on Postgres only other repairs do.
        step = SWEPT_TOGETHER if connection.vendor == "postgresql" else REPAIRED_TOGETHER
        for begin in range(0, len(moved), step):
            _rewrite(_list(moved[begin : begin + step]))
        yield len(moved)


def _moved(among: str, *parameters: Any) -> list[int]:
    query = MOVED.format(among=among)
    if connection.vendor != "postgresql":
        return [id_ for (id_,) in _rows(query, *parameters)]
    with transaction.atomic():
        # Starting workers costs more than the few rows of an index that are read here.
        _run("SET LOCAL max_parallel_workers_per_gather = 0")
        return [id_ for (id_,) in _rows(query, *parameters)]


def _rewrite(ids: Any) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
            cursor.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        among = _among()
        cursor.execute(STATES.format(among=among), [ids])
        _know(cursor.fetchall())
        cursor.execute(COUNT.format(among=among, sign="-"), [ids])
        cursor.execute(LEAVE.format(among=among), [ids])
        cursor.execute(ENTER.format(among=among), [ids])
        cursor.execute(COUNT.format(among=among, sign=""), [ids])


def _know(states: list[tuple[int, str]]) -> None:
    """See to it that all of these have a row."""
    KnownState.objects.bulk_create(
        [
            KnownState(machine_id=machine_id, digest=_digest(text), text=text)
            for machine_id, text in states
        ],
        ignore_conflicts=True,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _among() -> str:
    if connection.vendor == "postgresql":
        return "= ANY (%s)"
    return "IN (SELECT value FROM json_each(%s))"


def _list(ids: Sequence[int]) -> Any:
    return list(ids) if connection.vendor == "postgresql" else json.dumps(list(ids))


def _run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _rows(query: str, *parameters: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        rows: list[Any] = cursor.fetchall()
    return rows


# --- Who owes what ------------------------------------------------------------------------------


def begin(keeper: str, node_id: str) -> None:
    """This process may owe repairs from now on; asked for again and again."""
    row = PlaceKeeper.objects.filter(pk=keeper).first()
    if row is None:
        PlaceKeeper.objects.create(id=keeper, node_id=node_id)
    elif row.node_id != node_id and not row.is_lost:
        # Where it was taken for dead, its row goes when all were compared, and then it makes one.
        PlaceKeeper.objects.filter(pk=keeper, is_lost=False).update(node_id=node_id)


def end(keeper: str) -> None:
    """It owes none any more."""
    PlaceKeeper.objects.filter(pk=keeper).delete()


def lose_dead(keeper: str) -> list[str]:
    """Of the other keepers, those that will not pay: they are marked, and to be swept for."""
    others = PlaceKeeper.objects.exclude(pk=keeper)
    if connection.vendor != "postgresql":
        lost = list(others.values_list("pk", flat=True))  # one process at a time has the database
    else:
        # Longer dead than its lease: it may still be about to find out.
        lost = [id_ for (id_,) in _rows(DOUBTFUL, 0) if id_ != keeper]
    PlaceKeeper.objects.filter(pk__in=lost, is_lost=False).update(is_lost=True)
    return lost


def swept(keepers: list[str]) -> None:
    """Everything was compared since these were lost."""
    PlaceKeeper.objects.filter(pk__in=keepers, is_lost=True).delete()


def are_exact() -> bool:
    """Whether the counts are those of a moment ago, with nothing missing."""
    if connection.vendor == "postgresql":
        return not _rows(DOUBTFUL, LEASE_LEFT_MS_MIN)
    return not PlaceKeeper.objects.filter(is_lost=True).exists()


# --- What pages ask -----------------------------------------------------------------------------


def counts(machine_ids: Sequence[int]) -> list[tuple[int, int, str, int, int]]:
    """(machine, known state, its text, version, instances) of what there is."""
    found = PlaceCount.objects.filter(machine_id__in=machine_ids, instances__gt=0)
    rows = list(found.values_list("machine_id", "state_id", "version_id", "instances"))
    texts = KnownState.objects.in_bulk({state_id for _, state_id, _, _ in rows})
    return [
        (machine_id, state_id, texts[state_id].text, version_id, instances)
        for machine_id, state_id, version_id, instances in rows
        if state_id in texts
    ]


def newest(
    kinds: Sequence[tuple[int, int]], count: int, *, after: int | None, oldest_first: bool = False
) -> list[int]:
    """The ids of instances in any of these places (known state, version), newest first.

    `after` is the id that the page before has ended with. Each kind is read off the index as far
    as it can be needed, so the cost is that of `count` rows a kind.
    """
    if not kinds:
        return []
    order, beyond = ("ASC", ">") if oldest_first else ("DESC", "<")
    one = f"""SELECT * FROM (SELECT instance_id FROM place WHERE state_id = %s AND version_id = %s
      {f"AND instance_id {beyond} %s" if after is not None else ""}
      ORDER BY instance_id {order} LIMIT %s) AS kind"""
    parameters: list[int] = []
    for state_id, version_id in kinds:
        parameters += [state_id, version_id, *([after] if after is not None else []), count]
    rows = _rows(
        f"{' UNION ALL '.join([one] * len(kinds))} ORDER BY 1 {order} LIMIT %s", *parameters, count
    )
    return [id_ for (id_,) in rows]
