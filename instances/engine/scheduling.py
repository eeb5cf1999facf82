"""One run of a schedule, as the stores write it: the schedule moves on and a delivery is there.

Both happen in one transaction, and only while `next_run` is what was read: whichever node comes
second writes nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class Firing(NamedTuple):
    schedule_id: int
    expected_ms: int  # its `next_run` as it was read
    next_run_ms: int | None
    planned_ms: int  # the time that this run is for
    problem: str  # why nothing is delivered, or empty
    kind: int  # of the delivery
    org_id: int
    machine_id: int
    slug: str
    event: str
    auth: str  # authContext as JSON
    now_ms: int


SQLITE_ADVANCE = """UPDATE schedule SET next_run=:next_run_ms, last_run=:planned_ms,
 last_problem=:problem WHERE id=:schedule_id AND next_run=:expected_ms"""
SQLITE_DELIVERY = """INSERT INTO delivery (id, kind, org_id, target_machine_id, target_slug, event,
 auth_context, due_at, claim_until, claims, attempts, created_at)
 VALUES (:id, :kind, :org_id, :machine_id, :slug, :event, :auth, :now_ms, 0, 0, 0, :now_ms)"""

POSTGRES = """WITH advanced AS (UPDATE schedule SET next_run = nullif($3::bigint, 0),
   last_run = $4::bigint, last_problem = $5::text
 WHERE id = $1::bigint AND next_run = $2::bigint RETURNING id),
made AS (INSERT INTO delivery (id, kind, org_id, target_machine_id, target_slug, event,
   auth_context, due_at, claim_until, claims, attempts, created_at)
 SELECT nextval('delivery_id_seq'), $6::bigint, $7::bigint, $8::bigint, $9::text, $10::text,
   $11::text, $12::bigint, 0, 0, 0, $12::bigint FROM advanced WHERE $5::text = '')
SELECT id FROM advanced"""
