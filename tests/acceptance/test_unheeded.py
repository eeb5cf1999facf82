"""What clients are told about events that did nothing stays as it is; a note is kept besides."""

from tests.acceptance.conftest import Deploy
from tests.acceptance.polling import eventually
from tests.acceptance.site import Site

STAFF = {"sub": "mia", "role": "staff"}
IGNORED, DENIED, PAUSED = range(3)


def test_ignored_denied_and_refused_events_are_noted(site: Site, deploy: Deploy):
    machine = deploy("order.ts")
    slug = "unheeded"
    created = site.create(machine, slug, {"customer": "ada", "public": {"total": 1}}, act=STAFF)
    ship = {"type": "ship", "trackingNumber": "X1"}

    ignored = site.send(machine, slug, ship, act=STAFF)
    denied = site.send(machine, slug, ship, act={"sub": "ada"})
    paused = site.request("PUT", f"/machines/{machine}/i/{slug}/status", {"status": "paused"})
    refused = site.send(machine, slug, ship, act=STAFF)

    assert (ignored.status, ignored.json) == (200, created.json)
    assert (denied.status, denied.json["code"]) == (403, "rejected-by-machine-authorizer")
    assert paused.status in (200, 204)
    assert (refused.status, refused.json["code"]) == (409, "invalid-state")
    notes = """SELECT u.seq, u.outcome, u.event FROM unheeded_event u
        JOIN instance ON instance.id = u.instance_id WHERE instance.slug = ? ORDER BY u.id"""
    eventually(lambda: len(site.query(notes, slug)) == 3, what="three notes are kept")
    found = site.query(notes, slug)
    assert [(seq, outcome) for seq, outcome, _ in found] == [(1, IGNORED), (1, DENIED), (1, PAUSED)]
    assert all('"ship"' in event for *_, event in found)
    assert len(site.history(machine, slug)) == 1
    logs = site.request("GET", "/logs?from=2020-01-01T00:00:00Z").text
    assert "unheeded" not in logs
