"""Every statement that the engine sends to Postgres; `postgres_store.py` says when.

Arrays come as binary parameters and are unrolled by `unnest`, so that a statement serves a batch of
any size. All parts of a statement see one snapshot. Rows are locked in the order of their ids, by
every process, instances before deliveries: two batches never wait for each other in a circle.

Plans are made once, without knowing how long the arrays are (`postgres_session.py`). Two arrays
must never be joined: the planner takes them for short and would compare each with each. So a part
that must come first is asked for by `(SELECT count(*) …) >= 0`, and `(… IN (SELECT …)) IS TRUE` is
answered from a hash table, where a plain IN may become a join.
"""

from instances.engine.holding import HELD_MS, Resume
from instances.engine.plan import (
    CHILD_DELETED,
    DUE_COLUMNS,
    HISTORY_COLUMNS,
    INSTANCE_COLUMNS,
    LOCAL_TIMER_MS,
    sender_of,
)

DATABASE_NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
# Constant within a statement, unlike the above: an index can be used for a comparison with it.
STATEMENT_NOW_MS = "(extract(epoch FROM now()) * 1000)::bigint"


# A lease that ends later than this was given before the database's clock was set back.
LEASE_FAR_MS = 20_000


def _unnest(name: str, columns: str, first: int) -> str:
    """`unnest(…) AS name(…)` of parameters from number `first`; columns are `name type`."""
    pairs = [column.split() for column in columns.split(",")]
    arrays = ", ".join(f"${first + n}::{type_}[]" for n, (_, type_) in enumerate(pairs))
    return f"unnest({arrays}) AS {name}({', '.join(column for column, _ in pairs)})"


INSTANCE_ARRAYS = """id bigint, slug text, version_id bigint, ts bigint, state text, extra text,
 context text, children text, settle_deadline bigint, created_at bigint, machine_id bigint,
 parent_id bigint, parent_child text"""
UPDATE_ARRAYS = """id bigint, base bigint, seq bigint, ts bigint, state text, extra text,
 context text"""
SETTLING_ARRAYS = ", children text, settle_deadline bigint, version bigint"
HISTORY_ARRAYS = """instance_id bigint, seq bigint, commit_id bigint, kind bigint, event text,
 state text, context text, effects text, report text, auth_context text, duration_us bigint,
 version_id bigint, request_key text, caused_by bigint, ts bigint, created_at bigint"""
# As plan.DeliveryValues.
DELIVERY_ARRAYS = """id bigint, kind bigint, target_machine text, target_slug text,
 parent_id bigint, source_id bigint, source_seq bigint, source_n bigint, send_id text, event text,
 hops bigint, due_at bigint, claim_until bigint, claims bigint, created_at bigint,
 source_machine_id bigint, source_slug text"""

RENAME_ARRAYS = """row_id bigint, send_id text, id bigint, new_send_id text, new_event text,
 new_seq bigint, new_n bigint, at bigint"""

HISTORY_VALUES = """x.instance_id, x.seq, x.commit_id, x.kind, x.event, x.state, x.context,
 x.effects, x.report, x.auth_context, x.duration_us, x.version_id, nullif(x.request_key, ''),
 nullif(x.caused_by, 0), x.ts, x.created_at"""

LOCKED = """locked AS MATERIALIZED (SELECT t.id FROM instance t WHERE t.id = ANY ($1::bigint[])
 ORDER BY t.id FOR NO KEY UPDATE)"""

# Steps of settled instances that create, consume and cancel nothing: what a busy site does most.
# A desired version stands in the way of events that find their instance settled. Returns the ids of
# the instances that moved.
STEPS = f"""WITH {LOCKED},
moved AS (UPDATE instance t SET seq = x.seq, ts = x.ts, state = x.state, extra = x.extra,
   context = x.context, children = '[]', owner = $24::text, settle_deadline = NULL
 FROM {_unnest("x", UPDATE_ARRAYS, 1)}
 WHERE (SELECT count(*) FROM locked) >= 0 AND t.id = x.id AND t.seq = x.base AND t.status = 0
   AND (t.desired_version_id IS NULL OR t.children <> '[]')
 RETURNING t.id),
history AS (INSERT INTO transition ({HISTORY_COLUMNS}) SELECT {HISTORY_VALUES}
 FROM {_unnest("x", HISTORY_ARRAYS, 8)}
 WHERE (x.instance_id IN (SELECT id FROM moved)) IS TRUE)
SELECT id, NULL FROM moved"""


# Everything that a batch can do. Parameters: updates (1-10: as above, then children, deadline and
# `Plan.wanted_version`), history (11-26), inserts (27-39), confirms (40-42: the last tells whether
# no event from outside is among them), consumed deliveries with the instance that consumes them
# (43-44), deliveries (45-61), cancels (62-63), this node (64).
# What an instance does takes place as a whole, or not at all. Returns the ids of the instances
# whose part took place, (instance, cancelled delivery, send id), and of each message that was
# written (target's machine, delivery, target's name): the first column tells which of these.
# What has come to its end changes no more, whatever version is desired.
def _batch(also: str = "", more: str = "", found: str = "") -> str:
    """`also` is set of instances that move; `more` is done besides, and returns `found`."""
    return f"""WITH {LOCKED},
consumed AS MATERIALIZED (SELECT d.id FROM delivery d
 WHERE d.id = ANY ($44::bigint[]) AND (SELECT count(*) FROM locked) >= 0 ORDER BY d.id FOR UPDATE),
lacking AS MATERIALIZED (SELECT x.row_id FROM {_unnest("x", "row_id bigint, id bigint", 43)}
 WHERE x.id NOT IN (SELECT id FROM consumed)),
moved AS (UPDATE instance t SET seq = x.seq, ts = x.ts, state = x.state, extra = x.extra,
   context = x.context, children = x.children, owner = $64::text,
   settle_deadline = nullif(x.settle_deadline, 0){also}
 FROM {_unnest("x", UPDATE_ARRAYS + SETTLING_ARRAYS, 1)}
 WHERE (SELECT count(*) FROM locked) >= 0 AND t.id = x.id AND t.seq = x.base AND t.status = 0
   AND (x.version <> 0 OR t.desired_version_id IS NULL OR t.children <> '[]')
   AND (x.version <= 0 OR (t.desired_version_id = x.version AND t.children = '[]'))
   AND t.id NOT IN (SELECT row_id FROM lacking) RETURNING t.id),
made AS (INSERT INTO instance ({INSTANCE_COLUMNS}, owner, org_id, status, seq)
 SELECT x.id, x.slug, x.version_id, x.ts, x.state, x.extra, x.context, x.children,
   nullif(x.settle_deadline, 0), x.created_at, x.machine_id, nullif(x.parent_id, 0),
   CASE WHEN x.parent_id <> 0 THEN x.parent_child END, $64::text, m.org_id, 0, 1
 FROM {_unnest("x", INSTANCE_ARRAYS, 27)} JOIN machines_machine m ON m.id = x.machine_id
 WHERE x.id NOT IN (SELECT row_id FROM lacking)
 ORDER BY x.machine_id, x.slug ON CONFLICT (machine_id, slug) DO NOTHING RETURNING id),
confirmed AS (SELECT x.id FROM {_unnest("x", "id bigint, seq bigint, is_inner bigint", 40)}
 JOIN instance t ON t.id = x.id AND t.seq = x.seq AND t.status = 0
   AND (x.is_inner <> 0 OR t.desired_version_id IS NULL OR t.children <> '[]'
     OR t.state LIKE '%"done":true}}')
 WHERE x.id NOT IN (SELECT row_id FROM lacking)),
done AS (SELECT id FROM moved UNION ALL SELECT id FROM made UNION ALL SELECT id FROM confirmed),
history AS (INSERT INTO transition ({HISTORY_COLUMNS}) SELECT {HISTORY_VALUES}
 FROM {_unnest("x", HISTORY_ARRAYS, 11)} WHERE (x.instance_id IN (SELECT id FROM done)) IS TRUE),
used AS (DELETE FROM delivery d USING {_unnest("x", "row_id bigint, id bigint", 43)}
 WHERE d.id = x.id AND (x.row_id IN (SELECT id FROM done)) IS TRUE RETURNING d.id),
cancelled AS (DELETE FROM delivery d WHERE d.id IN (
   SELECT (SELECT e.id FROM delivery e WHERE e.source_id = x.row_id AND e.send_id = x.send_id
      AND e.id NOT IN (SELECT id FROM used) ORDER BY e.source_seq DESC, e.source_n DESC LIMIT 1)
   FROM {_unnest("x", "row_id bigint, send_id text", 62)}
   WHERE (x.row_id IN (SELECT id FROM done)) IS TRUE)
 RETURNING d.id, d.source_id, d.send_id),{more}
written AS (INSERT INTO delivery (id, kind, target_machine_id, target_machine, target_slug,
   source_id, source_seq, source_n, send_id, event, auth_context, hops, due_at, claim_until, claims,
   created_at, org_id, attempts)
 SELECT x.id, x.kind, CASE WHEN x.parent_id <> 0 THEN p.machine_id
     WHEN x.target_machine = '' THEN m.id ELSE coalesce(t.id, 0) END,
   x.target_machine, CASE WHEN x.parent_id <> 0 THEN p.slug ELSE x.target_slug END, x.source_id,
   x.source_seq, x.source_n, CASE WHEN x.kind = 0 THEN x.send_id ELSE nullif(x.send_id, '') END,
   x.event, CASE WHEN x.kind = 0 THEN '' ELSE {sender_of("m.slug", "x.source_slug")} END, x.hops,
   x.due_at, x.claim_until, x.claims, x.created_at, m.org_id, 0
 FROM {_unnest("x", DELIVERY_ARRAYS, 45)} JOIN machines_machine m ON m.id = x.source_machine_id
 LEFT JOIN machines_machine t ON t.org_id = m.org_id AND t.slug = x.target_machine
 LEFT JOIN instance p ON p.id = x.parent_id AND p.status <> 2
 WHERE (x.source_id IN (SELECT id FROM done)) IS TRUE AND (x.kind <> 3 OR p.id IS NOT NULL)
 RETURNING id, kind, target_machine_id, target_slug)
SELECT 0, id, NULL, NULL FROM done UNION ALL SELECT 1, source_id, id, send_id FROM cancelled
UNION ALL SELECT 2, target_machine_id, id, target_slug FROM written WHERE kind <> 0{found}"""


BATCH = _batch()

# The same where instances get another version. Some timers go on as what that one calls them: new
# rows take the places of theirs. Parameters besides: the instance, the name so far, and id, name,
# event, seq, n and time of the new row (65-72); how long what is due soon is claimed (73).
# Returns besides the old rows like cancelled ones, and the new ones: when due, id, and
# `<attempts> <hops>`.
BATCH_WITH_UPGRADES = _batch(
    also=""",
   version_id = CASE WHEN x.version > 0 THEN x.version ELSE t.version_id END,
   desired_version_id = CASE WHEN x.version > 0 THEN NULL ELSE t.desired_version_id END""",
    more=f"""
renamed AS MATERIALIZED (SELECT x.id AS new_id, x.new_send_id, x.new_event, x.new_seq, x.new_n,
   x.at, (SELECT e.id FROM delivery e WHERE e.source_id = x.row_id AND e.send_id = x.send_id
     AND e.kind = 0 ORDER BY e.source_seq DESC, e.source_n DESC LIMIT 1) AS old_id
 FROM {_unnest("x", RENAME_ARRAYS, 65)} WHERE (x.row_id IN (SELECT id FROM done)) IS TRUE),
dropped AS (DELETE FROM delivery d WHERE d.id IN (SELECT old_id FROM renamed) RETURNING d.*),
kept AS (INSERT INTO delivery (id, kind, org_id, target_machine_id, target_machine, target_slug,
   source_id, source_seq, source_n, send_id, event, auth_context, hops, due_at, claim_until, claims,
   attempts, last_error, created_at)
 SELECT r.new_id, d.kind, d.org_id, d.target_machine_id, d.target_machine, d.target_slug,
   d.source_id, r.new_seq, r.new_n, r.new_send_id, r.new_event, d.auth_context, d.hops, d.due_at,
   CASE WHEN d.due_at < r.at + {LOCAL_TIMER_MS} THEN r.at + $73::bigint ELSE 0 END,
   CASE WHEN d.due_at < r.at + {LOCAL_TIMER_MS} THEN 1 ELSE 0 END,
   d.attempts, d.last_error, d.created_at
 FROM dropped d JOIN renamed r ON r.old_id = d.id RETURNING id, due_at, attempts, hops),""",
    found="""
UNION ALL SELECT 1, source_id, id, send_id FROM dropped
UNION ALL SELECT 3, due_at, id, attempts || ' ' || hops FROM kept""",
)

# Why a step found no row: its commit id (if it is there after all), the instance's status, whether
# the request key and the delivery are there.
REASON = """SELECT (SELECT commit_id FROM transition WHERE instance_id = $1::bigint
   AND seq = $2::bigint),
 (SELECT status FROM instance WHERE id = $1::bigint),
 EXISTS (SELECT 1 FROM transition WHERE instance_id = $1::bigint AND request_key = $3::text),
 EXISTS (SELECT 1 FROM delivery WHERE id = $4::bigint)"""

# Of steps of which nothing took place: the instances that somebody else has moved since. Their
# seq before the step, and the step's commit id: an earlier attempt of ours may have moved them.
OUTRUN = f"""SELECT x.n FROM {
    _unnest("x", "n bigint, id bigint, base bigint, commit_id bigint", 1)
} JOIN instance t ON t.id = x.id WHERE t.status = 0 AND t.seq > x.base
 AND NOT EXISTS (SELECT 1 FROM transition h WHERE h.instance_id = x.id AND h.seq = x.base + 1
   AND h.commit_id = x.commit_id)"""

INSTANCE_IDS = "SELECT nextval('instance_id_seq') FROM generate_series(1, $1::bigint)"
DELIVERY_IDS = "SELECT nextval('delivery_id_seq') FROM generate_series(1, $1::bigint)"

# --- reading

READ = f"""SELECT x.n, t.id, t.version_id, t.status, t.seq, t.ts, t.state, t.extra, t.context,
 t.children, t.owner, t.settle_deadline,
 (SELECT n.address FROM node n WHERE n.id = t.owner AND n.lease_until > {STATEMENT_NOW_MS}
   AND n.lease_until <= {STATEMENT_NOW_MS} + {LEASE_FAR_MS}), t.parent_id, t.parent_child,
 t.desired_version_id
 FROM {_unnest("x", "n bigint, machine_id bigint, slug text", 1)}
 JOIN instance t ON t.machine_id = x.machine_id AND t.slug = x.slug"""
# Which of these instances have gone further than that seq; without a row for those that are gone.
MOVED = f"""SELECT x.n, t.seq > x.seq FROM {
    _unnest("x", "n bigint, machine_id bigint, slug text, seq bigint", 1)
} JOIN instance t ON t.machine_id = x.machine_id AND t.slug = x.slug"""
# What is due for a target besides its own timers: of one sender in the order in which it was sent.
# With the status of the target: while it is paused, some of it may be held already and some not.
FIND_DUE = f"""SELECT x.n, {", ".join(f"d.{column.strip()}" for column in DUE_COLUMNS.split(","))},
 (SELECT t.status FROM instance t WHERE t.machine_id = x.machine_id AND t.slug = x.slug)
 FROM {_unnest("x", "n bigint, machine_id bigint, slug text, now_ms bigint", 1)},
 LATERAL (SELECT * FROM delivery e WHERE e.target_machine_id = x.machine_id
   AND e.target_slug = x.slug AND e.due_at <= x.now_ms AND e.kind <> 0
   ORDER BY e.due_at, e.source_seq, e.source_n, e.id LIMIT $5::bigint) d
 ORDER BY x.n, d.due_at, d.source_seq, d.source_n, d.id"""
FIND_VERSION = """SELECT v.id FROM machines_machine m JOIN machines_machineversion v
 ON v.machine_id = m.id
 AND CASE WHEN $2::text = '' THEN v.id = m.current_version_id ELSE v.public_id = $2::text END
 WHERE m.id = $1::bigint"""
FIND_MIGRATIONS = """SELECT g.id, g.from_version_id, g.to_version_id, f.public_id, t.public_id
 FROM machines_machineversionmigration g
 JOIN machines_machineversion f ON f.id = g.from_version_id
 JOIN machines_machineversion t ON t.id = g.to_version_id WHERE g.machine_id = $1::bigint"""
FIND_REQUEST_KEY = """SELECT 1 FROM transition
 WHERE instance_id = $1::bigint AND request_key = $2::text"""

# --- other changes

# Pausing holds what the instance is to get, resuming releases it (holding.py). Both lock the
# instance before its deliveries, and so does a HOLD: the second sees what the first has done.
PAUSE = f"""WITH was AS MATERIALIZED (SELECT id, machine_id, slug FROM instance
 WHERE id = $1::bigint AND status <> 2 FOR UPDATE),
changed AS (UPDATE instance t SET status = 1, paused_at = coalesce(t.paused_at, {STATEMENT_NOW_MS})
 FROM was WHERE t.id = was.id RETURNING t.id),
locked AS MATERIALIZED (SELECT d.id FROM delivery d
 JOIN was ON d.target_machine_id = was.machine_id AND d.target_slug = was.slug
 WHERE d.due_at < {HELD_MS} ORDER BY d.id FOR UPDATE OF d),
held AS (UPDATE delivery d SET due_at = d.due_at + {HELD_MS} FROM locked
 WHERE d.id = locked.id AND d.due_at < {HELD_MS})
SELECT id FROM changed"""
# The planned time of `d`, held or not.
PLANNED = f"(d.due_at - CASE WHEN d.due_at >= {HELD_MS} THEN {HELD_MS} ELSE 0 END)"
RESUME = f"""WITH was AS MATERIALIZED (SELECT id, machine_id, slug, status, paused_at FROM instance
 WHERE id = $1::bigint AND status <> 2 FOR UPDATE),
changed AS (UPDATE instance t SET status = 0, paused_at = NULL FROM was WHERE t.id = was.id
 RETURNING t.id),
locked AS MATERIALIZED (SELECT d.id, d.due_at, was.paused_at FROM delivery d
 JOIN was ON d.target_machine_id = was.machine_id AND d.target_slug = was.slug
 WHERE was.status = 1 ORDER BY d.id FOR UPDATE OF d),
x AS MATERIALIZED (SELECT id, paused_at AS since, row_number() OVER (ORDER BY due_at, id) AS n
 FROM locked),
released AS (UPDATE delivery d SET
 claim_until = CASE WHEN d.due_at >= {HELD_MS} THEN 0 ELSE d.claim_until END,
 due_at = CASE WHEN d.kind <> 0 OR $2::bigint = {Resume.ORIGINAL} THEN {PLANNED}
   WHEN $2::bigint = {Resume.KEEP_REMAINING}
     THEN {PLANNED} + greatest({STATEMENT_NOW_MS} - coalesce(x.since, {STATEMENT_NOW_MS}), 0)
   ELSE least({PLANNED}, {STATEMENT_NOW_MS} + x.n) END
 FROM x WHERE d.id = x.id)
SELECT id FROM changed"""
HOLD = f"""WITH paused AS MATERIALIZED (SELECT t.machine_id, t.slug FROM instance t
 JOIN delivery d ON d.target_machine_id = t.machine_id AND d.target_slug = t.slug
 WHERE d.id = $1::bigint AND t.status = 1 FOR SHARE OF t),
locked AS MATERIALIZED (SELECT d.id FROM delivery d
 JOIN paused ON d.target_machine_id = paused.machine_id AND d.target_slug = paused.slug
 WHERE d.due_at < {HELD_MS} ORDER BY d.id FOR UPDATE OF d),
held AS (UPDATE delivery d SET due_at = d.due_at + {HELD_MS}, claim_until = 0, claims = 0
 FROM locked WHERE d.id = locked.id AND d.due_at < {HELD_MS})
UPDATE delivery SET claim_until = 0, claims = claims - 1
 WHERE id = $1::bigint AND due_at < {HELD_MS} AND claims > 0
   AND (SELECT count(*) FROM paused) = 0"""
# The parent of a child that has not come to its end hears that there is none any more.
DELETE = f"""WITH found AS MATERIALIZED (SELECT id, org_id, machine_id, slug, parent_id,
   parent_child, state FROM instance WHERE id = $1::bigint AND status <> 2 FOR UPDATE),
gone AS (UPDATE instance t SET status = 2, seq = t.seq + 1, slug = t.slug || '~' || t.id,
   settle_deadline = NULL, owner = NULL FROM found WHERE t.id = found.id RETURNING t.id),
undelivered AS (DELETE FROM delivery d USING found
 WHERE d.target_machine_id = found.machine_id AND d.target_slug = found.slug),
told AS (INSERT INTO delivery (kind, org_id, target_machine_id, target_slug, source_id, event,
   auth_context, due_at, claim_until, claims, attempts, created_at)
 SELECT 3, found.org_id, p.machine_id, p.slug, found.id,
   '{{"type":"statebacked.child-error","id":' || to_json(found.parent_child)::text
   || {CHILD_DELETED},
   {sender_of("m.slug", "found.slug")}, {STATEMENT_NOW_MS}, 0, 0, 0, {STATEMENT_NOW_MS}
 FROM found JOIN machines_machine m ON m.id = found.machine_id
 JOIN instance p ON p.id = found.parent_id AND p.status <> 2
 WHERE found.state NOT LIKE '%"done":true}}')
SELECT id FROM gone"""
DELETED = "SELECT id FROM instance WHERE status = 2"
PURGE = """WITH gone AS (DELETE FROM transition WHERE ctid = ANY (ARRAY(
   SELECT ctid FROM transition WHERE instance_id = $1::bigint LIMIT $2::bigint)) RETURNING 1)
SELECT count(*) FROM gone"""
PURGE_LOGS = "DELETE FROM log_entry WHERE instance_id = $1::bigint"
PURGE_NOTES = "DELETE FROM unheeded_event WHERE instance_id = $1::bigint"
PURGE_INSTANCE = "DELETE FROM instance WHERE id = $1::bigint AND status = 2"
RELEASE = """UPDATE instance SET settle_deadline = NULL, owner = NULL
 WHERE id = $1::bigint AND seq = $2::bigint AND status <> 2"""

# The inner SELECT is an array, so that it runs once and its LIMIT holds.
CLAIM = f"""UPDATE delivery SET claim_until = {STATEMENT_NOW_MS} + $3::bigint, claims = claims + 1
 WHERE id = ANY (ARRAY(SELECT id FROM delivery
   WHERE due_at <= $1::bigint AND claim_until <= {STATEMENT_NOW_MS}
   ORDER BY due_at, id LIMIT $2::bigint FOR UPDATE SKIP LOCKED))
 RETURNING {DUE_COLUMNS}"""
# Not what was held or put off after it was claimed.
CLAIMED = f"""SELECT {DUE_COLUMNS} FROM delivery WHERE id = ANY ($1::bigint[])
 AND claim_until > {STATEMENT_NOW_MS} AND due_at <= {STATEMENT_NOW_MS} + $2::bigint"""
UNCLAIM = """UPDATE delivery SET claim_until = 0, claims = claims - 1
 WHERE id = ANY (ARRAY(SELECT id FROM delivery WHERE id = ANY ($1::bigint[]) AND claim_until > 0
   ORDER BY id FOR UPDATE SKIP LOCKED))"""
RENEW_CLAIMS = f"""UPDATE delivery SET claim_until = {STATEMENT_NOW_MS} + $2::bigint
 WHERE id = ANY (ARRAY(SELECT id FROM delivery WHERE id = ANY ($1::bigint[])
   ORDER BY id FOR UPDATE SKIP LOCKED))"""
POSTPONE = f"""UPDATE delivery SET claim_until = 0, claims = claims - 1, due_at = $2::bigint
 WHERE id = $1::bigint AND due_at < {HELD_MS}"""
FAIL = f"""UPDATE delivery SET attempts = attempts + 1, last_error = $3::text, claim_until = 0,
 due_at = {STATEMENT_NOW_MS} + $4::bigint
 WHERE id = $1::bigint AND attempts = $2::bigint AND due_at < {HELD_MS}"""

FIND_MACHINE = """UPDATE delivery d SET target_machine_id = m.id FROM machines_machine m
 WHERE d.id = $1::bigint AND d.target_machine_id = 0 AND m.org_id = d.org_id
   AND m.slug = d.target_machine RETURNING m.id"""

_KEPT_COLUMNS = """id, kind, org_id, target_machine_id, target_machine, target_slug, source_id,
 source_seq, source_n, send_id, event, auth_context, hops, due_at, claim_until, claims"""
BURY = f"""WITH gone AS (DELETE FROM delivery WHERE id = $1::bigint AND attempts = $2::bigint
 AND due_at < {HELD_MS} RETURNING *),
told AS (INSERT INTO delivery (kind, org_id, target_machine_id, target_slug, event, auth_context,
   due_at, claim_until, claims, attempts, created_at)
 SELECT 3, gone.org_id, p.machine_id, p.slug, $5::text,
   {sender_of("gone.target_machine", "gone.target_slug")}, {STATEMENT_NOW_MS}, 0, 0, 0,
   {STATEMENT_NOW_MS}
 FROM gone JOIN instance p ON p.id = gone.source_id AND p.status <> 2
 WHERE gone.kind = 2 AND $5::text <> '')
INSERT INTO dead_letter ({_KEPT_COLUMNS}, attempts, last_error, created_at, died_at, reason)
SELECT {_KEPT_COLUMNS}, $3::bigint, $4::text, created_at, {STATEMENT_NOW_MS}, $4::text FROM gone"""

LOG = f"""INSERT INTO log_entry (org_id, machine_id, version_id, instance_id, instance_slug, level,
   message, created_at)
 SELECT m.org_id, m.id, x.version_id, nullif(x.instance_id, 0), x.slug, x.level, x.message, x.at
 FROM {
    _unnest(
        "x",
        "version_id bigint, instance_id bigint, slug text, level text, message text, at bigint",
        1,
    )
} JOIN machines_machineversion v ON v.id = x.version_id
 JOIN machines_machine m ON m.id = v.machine_id"""

NOTE = f"""INSERT INTO unheeded_event (instance_id, seq, kind, outcome, event, auth_context, more,
   created_at)
 SELECT x.instance_id, x.seq, x.kind, x.outcome, x.event, x.auth, x.more, x.at FROM {
    _unnest(
        "x",
        "instance_id bigint, seq bigint, kind bigint, outcome bigint, event text, auth text,"
        " more bigint, at bigint",
        1,
    )
}"""
