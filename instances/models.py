"""The durable tables of the engine: instances, their history, and what is still to be done.

The event path reads and writes them with plain SQL (instances/engine/sqlite_store.py); Django owns
the schema and reads them for lists and pages. Times are integer milliseconds since the epoch. JSON
is stored as text, exactly as the runner wrote it. There are no foreign key constraints here: every
event would pay for them, and the engine and machines/access.py keep the references right.
"""

from typing import ClassVar

from django.db import models

from authz.models import Org
from instances.engine.holding import HELD_MS, planned_ms
from machines.models import Machine, MachineVersion


class Instance(models.Model):
    """One durable running copy of a machine version. `seq` counts its committed transitions."""

    class Status(models.IntegerChoices):
        RUNNING = 0, "running"
        PAUSED = 1, "paused"
        DELETED = 2, "deleted"

    org = models.ForeignKey(Org, models.DO_NOTHING, db_constraint=False, db_index=False)
    machine = models.ForeignKey(
        Machine, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="instances"
    )
    slug = models.CharField(max_length=160)  # 128, and room for the suffix of a deleted one
    version = models.ForeignKey(
        MachineVersion, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    desired_version = models.ForeignKey(
        MachineVersion,
        models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        blank=True,
        related_name="+",
    )
    status = models.PositiveSmallIntegerField(choices=Status.choices, default=Status.RUNNING)
    paused_at = models.BigIntegerField(null=True)  # null while it runs
    seq = models.BigIntegerField()
    ts = models.BigIntegerField()  # of the latest state; grows with every transition
    state = models.TextField()  # {"state": value, "tags": [...], "done": bool}
    extra = models.TextField(default="")  # what only the harness reads
    context = models.TextField()
    children = models.TextField(default="[]")  # live ephemeral services: [{"id", "src"}], in order
    owner = models.TextField(null=True)  # node of the latest commit; a hint once settled
    settle_deadline = models.BigIntegerField(null=True)  # null: settled
    # The instance whose transition spawned it, and the id by which that one knows it.
    parent_id = models.BigIntegerField(null=True)
    parent_child = models.TextField(null=True)
    created_at = models.BigIntegerField()

    class Meta:
        db_table = "instance"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["machine", "slug"], name="instance_slug_unique")
        ]
        indexes: ClassVar[list[models.Index]] = [
            # Orphans of a node that is gone: … WHERE owner=? AND settle_deadline IS NOT NULL.
            models.Index(
                fields=["owner"],
                name="instance_unsettled",
                condition=models.Q(settle_deadline__isnull=False),
            ),
            # Pages of a machine's instances, newest first. Like all indexes here, of columns that
            # no event changes: Postgres then updates rows in place.
            models.Index(fields=["machine", "id"], name="instance_of_machine"),
            models.Index(  # the children of an instance
                fields=["parent_id"],
                name="instance_of_parent",
                condition=models.Q(parent_id__isnull=False),
            ),
            # The few that are paused, for the same page. Only pausing touches it.
            models.Index(
                fields=["machine", "id"],
                name="instance_paused",
                condition=models.Q(status=1),
            ),
        ]


class KnownState(models.Model):
    """A state that instances of a machine were found in: its text, as in `Instance.state`."""

    machine_id = models.BigIntegerField()
    digest = models.CharField(max_length=64)  # SHA-256: a text may be too long for an index
    text = models.TextField()

    class Meta:
        db_table = "known_state"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["machine_id", "digest"], name="known_state_once")
        ]


class Place(models.Model):
    """Where an instance was found a moment ago: what lists filter by and counts are of.

    Events change an instance's state, so no index may be on it. These rows follow it at a distance
    of two seconds or so (instances/places.py), and one that stays where it is costs nothing.
    """

    instance_id = models.BigIntegerField(primary_key=True)
    machine_id = models.BigIntegerField()
    state_id = models.BigIntegerField()
    version_id = models.BigIntegerField()

    class Meta:
        db_table = "place"
        indexes: ClassVar[list[models.Index]] = [
            # The newest in some state, on some version.
            models.Index(fields=["state_id", "version_id", "instance_id"], name="place_of_state")
        ]


class PlaceCount(models.Model):
    """How many rows of `Place` there are by state and version, changed in the same transaction."""

    machine_id = models.BigIntegerField(db_index=True)
    state_id = models.BigIntegerField()
    version_id = models.BigIntegerField()
    instances = models.BigIntegerField()

    class Meta:
        db_table = "place_count"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["state_id", "version_id"], name="place_count_once")
        ]


class PlaceKeeper(models.Model):
    """A process that owes the places what it has committed in the last second.

    It removes its row when it has paid and stops. If it dies, somebody has to look at everything.
    """

    id = models.TextField(primary_key=True)
    node_id = models.TextField()  # empty on SQLite
    is_lost = models.BooleanField(default=False)  # nobody else will pay: compare all

    class Meta:
        db_table = "place_keeper"


class Transition(models.Model):
    """One committed macrostep of an instance. Append only."""

    class Kind(models.IntegerChoices):
        INIT = 0, "init"
        CLIENT = 1, "client"
        TIMER = 2, "timer"
        MESSAGE = 3, "message"
        SERVICE = 4, "service"
        LOST_SERVICE = 5, "lost service"
        UPGRADE = 6, "upgrade"
        HTTP_API = 7, "http api"

    pk = models.CompositePrimaryKey("instance_id", "seq")
    instance_id = models.BigIntegerField()
    seq = models.BigIntegerField()
    commit_id = models.BigIntegerField()  # tells our own commit from another's after a lost answer
    kind = models.PositiveSmallIntegerField(choices=Kind.choices)
    event = models.TextField()
    state = models.TextField()
    context = models.TextField()
    effects = models.TextField(default="")  # timers, cancels, messages: JSON list, or empty
    report = models.TextField(default="")  # names of actions and services: JSON object, or empty
    auth_context = models.TextField(default="")  # who sent the event: JSON, or empty
    duration_us = models.IntegerField()  # computing it in the runner
    version_id = models.BigIntegerField()
    request_key = models.CharField(max_length=255, null=True)
    caused_by = models.BigIntegerField(null=True)  # the delivery that was consumed
    ts = models.BigIntegerField()
    created_at = models.BigIntegerField()

    class Meta:
        db_table = "transition"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            # A request key is applied at most once (P1); also the look-up of a repeated request.
            models.UniqueConstraint(
                fields=["instance_id", "request_key"],
                name="transition_request_key_once",
                condition=models.Q(request_key__isnull=False),
            )
        ]


class DeliveryFields(models.Model):
    """What a delivery and a dead letter share."""

    class Kind(models.IntegerChoices):
        TIMER = 0, "timer"
        MESSAGE = 1, "message"
        SPAWN = 2, "spawn"
        CHILD_DONE = 3, "child done"

    kind = models.PositiveSmallIntegerField(choices=Kind.choices)
    org_id = models.BigIntegerField()
    target_machine_id = models.BigIntegerField()  # 0: there is no machine of that name yet
    target_machine = models.CharField(max_length=160, default="", db_default="")  # if named
    target_slug = models.CharField(max_length=160)
    source_id = models.BigIntegerField(null=True)
    source_seq = models.BigIntegerField(null=True)
    source_n = models.SmallIntegerField(null=True)
    send_id = models.TextField(null=True)
    event = models.TextField()
    # Who sends it, as `allowWrite` is told; empty for the instance's own timers.
    auth_context = models.TextField(default="", db_default="")
    # How many messages led to this one since something happened outside.
    hops = models.IntegerField(default=0, db_default=0)
    due_at = models.BigIntegerField()
    claim_until = models.BigIntegerField(default=0)
    claims = models.IntegerField(default=0)
    attempts = models.SmallIntegerField(default=0)
    last_error = models.TextField(null=True)
    created_at = models.BigIntegerField()

    class Meta:
        abstract = True


class Delivery(DeliveryFields):
    """Everything durable that is still to be done: timers, messages, spawns and ends of children.

    While its target is paused `due_at` is far away (engine/holding.py); `planned_at` is its time.

    A row is written in the commit of the transition that caused it and deleted in the commit of
    the transition that consumes it.
    """

    id = models.BigAutoField(primary_key=True)

    @property
    def is_held(self) -> bool:
        return self.due_at >= HELD_MS

    @property
    def planned_at(self) -> int:
        return planned_ms(self.due_at)

    class Meta:
        db_table = "delivery"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["source_id", "source_seq", "source_n"], name="delivery_written_once"
            )
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["due_at"], name="delivery_due"),  # the pump
            models.Index(  # all that waits for one instance, in the order of delivery
                fields=["target_machine_id", "target_slug", "due_at", "id"], name="delivery_target"
            ),
            models.Index(  # cancel
                fields=["source_id", "send_id"],
                name="delivery_send",
                condition=models.Q(send_id__isnull=False),
            ),
        ]


class DeadLetter(DeliveryFields):
    """A delivery that failed for good, kept for people to look at and send again."""

    id = models.BigIntegerField(primary_key=True)  # of the delivery
    died_at = models.BigIntegerField()
    reason = models.TextField()

    class Meta:
        db_table = "dead_letter"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["org_id", "died_at"], name="dead_letter_of_org")
        ]


class Node(models.Model):
    """A process that hosts the engine, from its start or a new beginning on; ids are never reused.

    Only where several processes share a database. Its lease says that its services run.
    """

    id = models.TextField(primary_key=True)  # <host>-<pid>-<random>
    address = models.TextField()  # where other nodes reach it
    role = models.TextField(db_default="all")  # web, worker or all
    started_at = models.BigIntegerField()
    lease_until = models.BigIntegerField()

    class Meta:
        db_table = "node"


class LogEntry(models.Model):
    """One line that customers' code wrote to its console."""

    id = models.BigAutoField(primary_key=True)
    org_id = models.BigIntegerField()
    machine_id = models.BigIntegerField()
    version_id = models.BigIntegerField()
    instance_id = models.BigIntegerField(null=True)
    instance_slug = models.CharField(max_length=160, default="")
    level = models.CharField(max_length=8)
    message = models.TextField()
    created_at = models.BigIntegerField()

    class Meta:
        db_table = "log_entry"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["org_id", "created_at"], name="log_entry_of_org"),
            models.Index(fields=["instance_id", "id"], name="log_entry_of_instance"),
        ]


class UnheededEvent(models.Model):
    """An event from outside that led to no transition: a note for the timeline, not a promise.

    Written some time after, a bounded number at a time; `seq` is the instance's when it came.
    """

    class Outcome(models.IntegerChoices):
        IGNORED = 0  # handled nowhere in its state, or all guards were false
        DENIED = 1  # by allowWrite
        PAUSED = 2

    id = models.BigAutoField(primary_key=True)
    instance_id = models.BigIntegerField()
    seq = models.BigIntegerField()
    kind = models.SmallIntegerField()  # of Transition.Kind
    outcome = models.SmallIntegerField(choices=Outcome.choices)
    event = models.TextField()  # JSON, but perhaps only the beginning of it
    auth_context = models.TextField()
    more = models.IntegerField()  # such events right after it that were only counted
    created_at = models.BigIntegerField()

    class Meta:
        db_table = "unheeded_event"
        indexes: ClassVar[list[models.Index]] = [
            # The timeline's blocks: all notes of some transitions, the newest first.
            models.Index(fields=["instance_id", "seq", "id"], name="unheeded_of_instance"),
        ]
