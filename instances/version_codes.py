"""The code of versions, as runners load it. A version never changes, so the latest ones are kept:
a runner that ended is replaced at once, also while the database can't be asked."""

from __future__ import annotations

import gzip
from collections import OrderedDict

from instances.lookups import in_thread
from instances.runtime.bundle import BundleCode
from machines.models import VersionCode

KEPT_CHARACTERS = 32_000_000


class VersionCodes:
    def __init__(self) -> None:
        self._kept: OrderedDict[int, BundleCode] = OrderedDict()  # the longest unused first
        self._characters = 0

    async def load(self, version_id: int) -> BundleCode:
        """Raises VersionCode.DoesNotExist, and Unavailable if the database can't be asked."""
        code = self._kept.get(version_id)
        if code is not None:
            self._kept.move_to_end(version_id)
            return code
        code = await _read(version_id)
        if self._kept.setdefault(version_id, code) is code:
            self._characters += len(code.commonjs)
        while self._characters > KEPT_CHARACTERS:
            _, dropped = self._kept.popitem(last=False)
            self._characters -= len(dropped.commonjs)
        return code


@in_thread
def _read(version_id: int) -> BundleCode:
    code = VersionCode.objects.get(version_id=version_id)
    return BundleCode(gzip.decompress(code.commonjs_gzip).decode(), list(code.externals))
