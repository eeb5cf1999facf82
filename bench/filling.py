"""Fills a database with very many instances, as a site has them after half a year.

Some instances are made through the API and brought into all their states. Then each is copied very
often by one statement: so every row is one that the engine has written, with its whole history. The
copies differ in name, version, status and time. No server may run meanwhile.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from bench.databases import Database, Postgres, Sqlite
from bench.site import BenchSite
from bench.workloads import EXAMPLES, WrongResult

SLOTS = 1000  # copy number n is made after template slots[n % SLOTS]
VERSIONS = 3  # of each machine
DAY_MS = 86_400_000
OLDEST_DAYS, NEWEST_DAYS = 180, 20  # ago, when the first and last of the copies were created
LOG_LINES = 100_000
TOGGLES = 17  # kinds of togglers: the one of kind n was switched n times
SETTLES_WITHIN_S = 30
LENGTHENED_STEP_MS = 700

STAFF = {"sub": "bench", "role": "staff"}
BUYER = {"sub": "ada"}
# (first slot, event) of the states that orders and approvals are in.
PAY = {"type": "pay", "card": "4242424242424242"}
SHIP = {"type": "ship", "trackingNumber": "X123"}


@dataclass(frozen=True)
class Template:
    machine: str
    slug: str
    slots: int


def templates(site: BenchSite) -> list[Template]:
    """Make them all, on the last version of each machine but for the versions of the copies."""
    for machine in ("toggler", "order", "approval"):
        site.deploy(machine, EXAMPLES / f"{machine}.ts")
        for _ in range(VERSIONS - 1):
            site.publish(machine, EXAMPLES / f"{machine}.ts")
    made = []

    def make(
        machine: str, slug: str, slots: int, context: Any, *events: tuple[Any, dict[str, str]]
    ) -> None:
        creator = BUYER if machine == "approval" else STAFF
        site.request("POST", f"machines/{machine}", {"slug": slug, "context": context}, creator)
        for event, act in events:
            site.request("POST", f"machines/{machine}/i/{slug}/events", {"event": event}, act)
        made.append(Template(machine, slug, slots))

    for count in range(TOGGLES):
        toggles = [({"type": "toggle"}, STAFF)] * count
        make("toggler", f"template-{count}", 24 if count < TOGGLES - 1 else 16, {}, *toggles)
    order = {"customer": "ada", "public": {"total": 4200}}
    make("order", "template-waiting", 120, order)
    make("order", "template-paid", 130, order, (PAY, BUYER))
    make("order", "template-shipped", 170, order, (PAY, BUYER), (SHIP, STAFF))
    make("order", "template-cancelled", 30, order, ({"type": "cancel"}, BUYER))
    trip = {"requester": "ada", "approver": "grace", "public": {"title": "Trip to Lisbon"}}
    make("approval", "template-pending", 75, trip)
    for event, slots in (("approve", 55), ("reject", 15), ("withdraw", 5)):
        decision = {"type": event, "by": "grace", "reason": "too far"}
        act = {"sub": "ada" if event == "withdraw" else "grace"}
        if event == "withdraw":
            decision["by"] = "ada"
        make("approval", f"template-{event}", slots, trip, (decision, act))
    return made


def fill(database: Database, made: list[Template], count: int) -> Iterator[str]:
    """Write `count` copies. Tells of each step when it is done, with the time that it took."""
    with _connection(database) as run:
        columns = {table: _columns(run, database, table) for table in COPIED}
        offset = _prepare(run, database, made)
        numbers = {"first": offset + 1, "last": offset + count, "count": count}
        numbers["now_ms"] = int(time.time() * 1000)
        is_postgres = isinstance(database, Postgres)
        for table, overrides in COPIED.items():
            started = time.monotonic()
            rows = run(_copy(table, columns[table], overrides, is_postgres, numbers))
            yield f"{rows:,} rows of {table} in {time.monotonic() - started:.0f} s"
        started = time.monotonic()
        run(_logs(is_postgres, numbers))
        # The server that starts next has to count them.
        run("INSERT INTO place_keeper (id, node_id, is_lost) VALUES ('filling', '', true)")
        for statement in FINISH[database.label]:
            run(statement)
        yield f"the rest in {time.monotonic() - started:.0f} s"


def lengthen(database: Database, slug: str, count: int) -> int:
    """Repeat the history of one instance until it has `count` transitions, or a few less: how many.

    It ends as it ended before, so that it can go on. No server may run meanwhile.
    """
    ((instance, length, now_ms),) = database.rows(
        "SELECT id, seq, ts FROM instance WHERE slug = ?", slug
    )
    last = count // length * length
    first_ms = now_ms - last * LENGTHENED_STEP_MS
    at = f"{first_ms} + g * {LENGTHENED_STEP_MS}"
    values = {"seq": "g", "commit_id": "g", "created_at": at, "ts": at, "request_key": "NULL"}
    with _connection(database) as run:
        names = _columns(run, database, "transition")
        numbers = _numbers(isinstance(database, Postgres), length + 1, last)
        run(f"""INSERT INTO transition ({", ".join(names)})
            SELECT {", ".join(values.get(name, f"t.{name}") for name in names)} FROM {numbers}
            JOIN transition t ON t.instance_id = {instance} AND t.seq = (g - 1) % {length} + 1
            ORDER BY g""")
        shift = f"{first_ms} + seq * {LENGTHENED_STEP_MS}"
        run(f"""UPDATE transition SET created_at = {shift}, ts = {shift}
            WHERE instance_id = {instance} AND seq <= {length}""")
        run(f"UPDATE instance SET seq = {last} WHERE id = {instance}")
        run("ANALYZE")
    return int(last)


# Of each table: the expressions of the columns that a copy does not take from its template. `g` is
# the copy's number, `t` the template's row, `i` the template's instance and `s` the slot.
CREATED = (
    f"({{now_ms}} - {OLDEST_DAYS * DAY_MS}"
    f" + (g - {{first}}) * ({(OLDEST_DAYS - NEWEST_DAYS) * DAY_MS} / {{count}}))"
)
STEP_MS = "(3600000 * (1 + g % 20))"  # between two transitions of an instance
COPIED = {
    "instance": {
        "id": "g",
        "slug": "s.machine || '-' || g",
        "version_id": "s.version_id",
        "status": "CASE WHEN s.n % 100 = 7 THEN 1 ELSE 0 END",
        "children": 'CASE WHEN s.is_unsettled THEN \'[{{"id":"lost","src":"lost"}}]\''
        " ELSE t.children END",
        "owner": "CASE WHEN s.is_unsettled THEN 'a-node-that-is-gone' ELSE t.owner END",
        "settle_deadline": f"CASE WHEN s.is_unsettled THEN {CREATED} END",
        "created_at": CREATED,
        "ts": f"{CREATED} + (t.seq - 1) * {STEP_MS}",
    },
    "transition": {
        "instance_id": "g",
        "version_id": "s.version_id",
        "commit_id": "g * 64 + t.seq",
        "created_at": f"{CREATED} + (t.seq - 1) * {STEP_MS}",
        "ts": f"{CREATED} + (t.seq - 1) * {STEP_MS}",
    },
    "delivery": {
        "id": "{first} + g * 8 + t.id % 8",
        "target_slug": "s.machine || '-' || g",
        "source_id": "g",
        # Within the next thirty days, but none during the benchmark.
        "due_at": f"{{now_ms}} + {DAY_MS} + (g * 7919) % {30 * DAY_MS}",
        "created_at": CREATED,
    },
}
SOURCE = {
    "instance": "t.id = s.template_id",
    "transition": "t.instance_id = s.template_id",
    "delivery": "t.source_id = s.template_id",
}
FINISH = {
    "SQLite": ("DROP TABLE bench_slot", "ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"),
    "Postgres": (
        "DROP TABLE bench_slot",
        "SELECT setval('instance_id_seq', (SELECT max(id) FROM instance))",
        "SELECT setval('delivery_id_seq', (SELECT max(id) FROM delivery))",
        "VACUUM ANALYZE",
        "CHECKPOINT",
    ),
}


def _copy(
    table: str,
    columns: list[str],
    overrides: dict[str, str],
    is_postgres: bool,
    numbers: dict[str, int],
) -> str:
    values = ", ".join(
        overrides[name].format(**numbers) if name in overrides else f"t.{name}" for name in columns
    )
    return f"""INSERT INTO {table} ({", ".join(columns)})
        SELECT {values} FROM {_numbers(is_postgres, numbers["first"], numbers["last"])}
        JOIN bench_slot s ON s.n = g % {SLOTS} JOIN {table} t ON {SOURCE[table]}
        ORDER BY g"""


def _logs(is_postgres: bool, numbers: dict[str, int]) -> str:
    first, last = numbers["first"], numbers["first"] + LOG_LINES - 1
    created = CREATED.format(**numbers | {"count": LOG_LINES})
    return f"""INSERT INTO log_entry (org_id, machine_id, version_id, instance_id, instance_slug,
          level, message, created_at)
        SELECT i.org_id, i.machine_id, i.version_id, i.id, i.slug,
          CASE WHEN g % 20 = 0 THEN 'error' ELSE 'log' END, 'line number ' || g, {created}
        FROM {_numbers(is_postgres, first, last)} JOIN instance i ON i.id = g ORDER BY g"""


def _numbers(is_postgres: bool, first: int, last: int) -> str:
    if is_postgres:
        return f"generate_series({first}::bigint, {last}::bigint) AS numbers(g)"
    return f"""(WITH RECURSIVE numbers(g) AS
        (SELECT {first} UNION ALL SELECT g + 1 FROM numbers WHERE g < {last})
        SELECT g FROM numbers) AS numbers"""


def _prepare(run: Any, database: Database, made: list[Template]) -> int:
    """Make the table of the slots; the highest id that an instance has."""
    query = """SELECT m.slug, i.slug, i.id FROM instance i
               JOIN machines_machine m ON m.id = i.machine_id"""
    ids: dict[tuple[str, str], int] = {
        (machine, slug): id_ for machine, slug, id_ in database.rows(query)
    }
    query = """SELECT m.slug, v.id FROM machines_machineversion v
               JOIN machines_machine m ON m.id = v.machine_id ORDER BY v.id"""
    versions: dict[str, list[int]] = {}
    for machine, version in database.rows(query):
        versions.setdefault(machine, []).append(version)
    rows: list[str] = []
    for template in made:
        for _ in range(template.slots):
            n = len(rows)
            # Six of ten on the newest version, three on the one before it.
            version = versions[template.machine][(-1, -2, -3)[(n * 7 % 10 > 5) + (n * 7 % 10 > 8)]]
            is_unsettled = template.slug == "template-paid" and n % 100 == 0
            key = ids[template.machine, template.slug]
            rows.append(f"({n}, {key}, {version}, '{template.machine}', {is_unsettled})")
    if len(rows) != SLOTS:
        raise WrongResult(f"there are {len(rows)} slots instead of {SLOTS}")
    run("""CREATE TABLE bench_slot (n bigint PRIMARY KEY, template_id bigint, version_id bigint,
           machine text, is_unsettled boolean)""")
    run(f"INSERT INTO bench_slot VALUES {', '.join(rows)}")
    # A multiple: so a copy's number tells its slot.
    return (max(ids.values()) // SLOTS + 1) * SLOTS


def _columns(run: Any, database: Database, table: str) -> list[str]:
    if isinstance(database, Sqlite):
        return [row[1] for row in database.rows(f"PRAGMA table_info({table})")]
    query = """SELECT column_name::text FROM information_schema.columns
               WHERE table_name = ? AND table_schema = 'public'"""
    return [name for (name,) in database.rows(query, table)]


@contextlib.contextmanager
def _connection(database: Database) -> Iterator[Any]:
    """A function that runs one statement and returns how many rows it has written."""
    if isinstance(database, Postgres):
        with psycopg.connect(database.url, autocommit=True) as postgres:
            # It may be lost with the machine, and then the benchmark is, too.
            postgres.execute("SET synchronous_commit = off")
            postgres.execute("SET work_mem = '256MB'")
            yield lambda text: postgres.execute(text).rowcount
        return
    assert isinstance(database, Sqlite)
    connection = sqlite3.connect(database.path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -500000")
    with contextlib.closing(connection):
        yield lambda text: connection.execute(text).rowcount
