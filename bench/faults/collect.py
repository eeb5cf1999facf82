"""Reads from the database what a run has left there."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from bench.faults.history import DeliveryRow, Evidence, Instance, Ownership, Transition

TRANSITIONS = """SELECT t.instance_id, i.slug, t.seq, t.kind, t.event,
 (t.state::json -> 'state')::text, t.ts, t.created_at, t.request_key, t.caused_by,
 t.xmin::text::bigint, t.effects, v.client_info
 FROM transition t JOIN instance i ON i.id = t.instance_id
 JOIN machines_machineversion v ON v.id = t.version_id ORDER BY t.instance_id, t.seq"""
INSTANCES = """SELECT i.id, i.slug, i.seq, i.ts, i.status, json_array_length(i.children::json),
 i.context, octet_length(i.context), m.org_id = i.org_id
 FROM instance i JOIN machines_machine m ON m.id = i.machine_id"""
OWNERSHIPS = "SELECT instance_id, seq, owner, children FROM faults_owner ORDER BY n"
DELIVERIES = """SELECT id, fate, xid, kind, due_at, send_id, source_id
 FROM faults_delivery ORDER BY n"""
PENDING = "SELECT id FROM delivery"
DEAD = "SELECT id FROM dead_letter"

Database = psycopg.Connection[tuple[Any, ...]]


def collect(database: Database, evidence: Evidence) -> None:
    """Add what is stored to the evidence."""
    evidence.transitions = [_transition(row) for row in database.execute(TRANSITIONS)]
    evidence.instances = [_instance(row) for row in database.execute(INSTANCES)]
    evidence.ownerships = [
        Ownership(row[0], row[1], row[2], tuple(child["id"] for child in json.loads(row[3])))
        for row in database.execute(OWNERSHIPS)
    ]
    evidence.deliveries = [DeliveryRow(*row) for row in database.execute(DELIVERIES)]
    evidence.pending = [row[0] for row in database.execute(PENDING)]
    evidence.dead = [row[0] for row in database.execute(DEAD)]


def _transition(row: tuple[Any, ...]) -> Transition:
    *known, xid, effects, version = row
    instance_id, slug, seq, kind, event, state, ts, created_at, key, caused_by = known
    cancels = sum(each["t"] == "cancel" for each in json.loads(effects)) if effects else 0
    return Transition(
        instance_id,
        slug,
        seq,
        kind,
        json.loads(event),
        json.loads(state),
        ts,
        created_at,
        key,
        caused_by,
        xid,
        cancels,
        version,
    )


def _instance(row: tuple[Any, ...]) -> Instance:
    id_, slug, seq, ts, status, children, context, context_bytes, is_of_its_org = row
    public = json.loads(context).get("public", {})
    return Instance(
        id_, slug, seq, ts, status, children, public, context_bytes, bool(is_of_its_org)
    )
