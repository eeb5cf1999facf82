"""The only way from a caller and two slugs to an instance. Another org's is not there."""

from django.db.models import QuerySet

from authz.callers import Caller
from instances.errors import InstanceNotFound
from instances.models import Instance
from machines.access import get_machine
from machines.models import Machine
from statebacked_site.identifiers import SLUG


def instances_of(machine: Machine) -> QuerySet[Instance]:
    """The instances that are not deleted: the rows of those wait for their purge."""
    return Instance.objects.filter(machine=machine).exclude(status=Instance.Status.DELETED)


def get_instance(caller: Caller, machine_slug: str, slug: str) -> Instance:
    """Raises NotFound or InstanceNotFound; a name that can be none never reaches the database."""
    machine = get_machine(caller, machine_slug)
    instance = instances_of(machine).filter(slug=slug).first() if SLUG.match(slug) else None
    if instance is None:
        raise InstanceNotFound(f"The machine {machine_slug} has no such instance")
    return instance
