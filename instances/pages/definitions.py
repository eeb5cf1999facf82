"""The definitions of versions, decoded, for pages that explain what instances do."""

from instances.explain import Definition
from machines.diagrams import diagram_of
from machines.flow import CannotDescribe, Graph
from machines.models import MachineVersion, VersionDiagram

DEFINITIONS_KEPT = 64

_kept: dict[int, Definition] = {}


def definition_of(version_id: int) -> Definition | None:
    """None if it can't be read: pages then do without it. A version's never changes."""
    found = _kept.get(version_id)
    if found is None:
        found = _read(version_id)
        if found is not None:
            keep(version_id, found)
    return found


def known_definition(version_id: int) -> Definition | None:
    """What `definition_of` answers if somebody has looked at the version before, else None.

    It runs no code, so a list may ask for it.
    """
    if version_id not in _kept and not VersionDiagram.objects.filter(version=version_id).exists():
        return None
    return definition_of(version_id)


def keep(version_id: int, definition: Definition) -> None:
    """Have `definition_of` answer this from now on."""
    if len(_kept) >= DEFINITIONS_KEPT:
        _kept.pop(next(iter(_kept)))
    _kept[version_id] = definition


def _read(version_id: int) -> Definition | None:
    version = MachineVersion.objects.filter(pk=version_id, code__isnull=False).first()
    diagram = diagram_of(version) if version is not None else None
    if diagram is None or diagram.problem:
        return None
    try:
        return Definition(Graph.decode(bytes(diagram.definition)))
    except CannotDescribe:
        return None
