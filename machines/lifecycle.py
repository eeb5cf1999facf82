"""Creating and deleting machines."""

from django.db import IntegrityError, transaction

from authz.callers import Caller
from instances.models import Instance
from machines.models import Machine
from statebacked_site.errors import Conflict, InvalidState


def create_machine(caller: Caller, slug: str) -> Machine:
    """A new machine of the caller's org; raises Conflict if the name is taken."""
    try:
        with transaction.atomic():
            return Machine.objects.create(org_id=caller.org_pk, slug=slug)
    except IntegrityError as exc:
        raise Conflict(f"There is a machine {slug} already") from exc


@transaction.atomic
def delete_machine(machine: Machine) -> None:
    """Delete the machine with its versions; raises InvalidState while it has instances."""
    instances = Instance.objects.filter(machine=machine).exclude(status=Instance.Status.DELETED)
    if instances.exists():
        raise InvalidState(f"{machine.slug} has instances: delete them first")
    machine_id = machine.pk
    machine.delete()
    transaction.on_commit(lambda: _announce(machine_id))


def _announce(machine_id: int) -> None:
    from instances.engine import door

    door.version_published(machine_id)
