"""The only way from a caller and a slug to a machine. Another org's machine is not there."""

from django.db.models import QuerySet

from authz.callers import Caller
from machines.models import Machine, MachineVersion
from statebacked_site.errors import NotFound
from statebacked_site.identifiers import SLUG


def machines_of(caller: Caller) -> QuerySet[Machine]:
    return Machine.objects.select_related("current_version").filter(org_id=caller.org_pk)


def get_machine(caller: Caller, slug: str) -> Machine:
    """Raises NotFound; a name that can be none never reaches the database."""
    machine = machines_of(caller).filter(slug=slug).first() if SLUG.match(slug) else None
    if machine is None:
        raise NotFound("There is no such machine")
    return machine


def get_version(caller: Caller, public_id: str) -> MachineVersion:
    """A version of any machine of the caller's org."""
    version = (
        MachineVersion.objects.filter(machine__org_id=caller.org_pk, public_id=public_id).first()
        if SLUG.match(public_id)
        else None
    )
    if version is None:
        raise NotFound("There is no such version")
    return version


def version_of(machine: Machine, public_id: str, parameter: str) -> MachineVersion:
    """A version of this machine, that a request names as `parameter`. Raises NotFound."""
    version = (
        MachineVersion.objects.select_related("machine")
        .filter(machine=machine, public_id=public_id)
        .first()
        if SLUG.match(public_id)
        else None
    )
    if version is None:
        raise NotFound("The machine has no such version", parameter)
    return version
