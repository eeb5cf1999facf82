"""Code that has loaded in the sandbox, and what is stored of it."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from instances.runtime.errors import InvalidBundle as BundleRefused
from instances.runtime.errors import RunnerUnavailable
from machines import gzip_code
from machines.errors import InvalidBundle
from statebacked_site.errors import Unavailable

if TYPE_CHECKING:
    from instances.runtime.bundle import BundleInfo


class CheckedCode(NamedTuple):
    source: bytes
    packed: bytes  # `source` gzipped
    bundle: BundleInfo

    def columns(self) -> dict[str, Any]:
        """The values of the fields of `models.Code`."""
        return {
            "source_gzip": self.packed,
            "source_sha256": hashlib.sha256(self.source).hexdigest(),
            "source_bytes": len(self.source),
            "commonjs_gzip": gzip.compress(self.bundle.commonjs.encode(), mtime=0),
            "externals": list(self.bundle.externals),
        }

    def warnings(self) -> list[str]:
        return list(self.bundle.warnings)


def check_source(source: bytes, load: Callable[[bytes], BundleInfo]) -> CheckedCode:
    """What `load` makes of an ES module. Raises InvalidBundle, TooLarge, Unavailable."""
    return _checked(source, gzip_code.pack(source), load)


def check_packed(packed: bytes, load: Callable[[bytes], BundleInfo]) -> CheckedCode:
    """The same for a gzipped one."""
    return _checked(gzip_code.unpack(packed), packed, load)


def _checked(source: bytes, packed: bytes, load: Callable[[bytes], BundleInfo]) -> CheckedCode:
    try:
        return CheckedCode(source, packed, load(source))
    except BundleRefused as exc:
        raise InvalidBundle(str(exc)) from exc
    except RunnerUnavailable as exc:
        raise Unavailable(str(exc)) from exc
