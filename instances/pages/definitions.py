"""The definition of a version, for pages that explain what its instances do."""

import gzip
import logging
import threading

from instances.explain import Definition
from instances.runtime.bundle import BundleCode
from machines.flow.errors import FlowError
from machines.flow.extraction import Extractor, build_extractor
from machines.models import VersionCode

log = logging.getLogger("statebacked.pages")

DEFINITIONS_KEPT = 64

_kept: dict[int, Definition] = {}
_reading = threading.Lock()  # a page's parts ask at once: the code is to be run for the first only


def definition_of(version_id: int) -> Definition | None:
    """None if it can't be read: pages then do without it. A version's never changes."""
    found = _kept.get(version_id)
    if found is not None:
        return found
    with _reading:
        found = _kept.get(version_id)
        if found is None:
            found = _read(version_id)
            if found is not None:
                keep(version_id, found)
    return found


def keep(version_id: int, definition: Definition) -> None:
    """Have `definition_of` answer this from now on."""
    if len(_kept) >= DEFINITIONS_KEPT:
        _kept.pop(next(iter(_kept)))
    _kept[version_id] = definition


def _read(version_id: int) -> Definition | None:
    code = VersionCode.objects.filter(version_id=version_id).first()
    if code is None or not code.commonjs_gzip:
        return None
    bundle = BundleCode(gzip.decompress(code.commonjs_gzip).decode(), list(code.externals))
    try:
        return Definition(_extractor().describe(bundle))
    except (FlowError, FileNotFoundError) as exc:
        log.warning("version %s has no definition to show: %s", version_id, exc)
        return None


def _extractor() -> Extractor:
    from statebacked_site.engine_settings import engine_settings

    runtime = engine_settings().runtime
    return Extractor(
        deno=runtime.deno,
        harness=runtime.harness,
        script=build_extractor(runtime.harness.parent.parent, runtime.esbuild),
        deno_dir=runtime.deno_dir,
    )
