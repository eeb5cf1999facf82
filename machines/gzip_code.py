"""Uploaded code: unpacked with a limit, so that a small file can't fill the memory."""

import gzip
import zlib

from statebacked_site.errors import InvalidParameter, TooLarge

GZIP_BYTES_MAX = 1024 * 1024
SOURCE_BYTES_MAX = 10 * 1024 * 1024

_GZIP_FORMAT = zlib.MAX_WBITS | 16  # zlib's way to say: with a gzip header


def pack(source: bytes) -> bytes:
    """`source` gzipped, the same bytes every time. Raises TooLarge."""
    _check_source_size(len(source))
    packed = gzip.compress(source, mtime=0)
    check_packed_size(len(packed))
    return packed


def unpack(packed: bytes) -> bytes:
    """Raises TooLarge before more than the limit is unpacked, InvalidParameter if it is no gzip."""
    check_packed_size(len(packed))
    unpacking = zlib.decompressobj(_GZIP_FORMAT)
    try:
        source = unpacking.decompress(packed, SOURCE_BYTES_MAX + 1)
    except zlib.error as exc:
        raise InvalidParameter(f"The code is not gzipped: {exc}", "file") from exc
    _check_source_size(len(source))
    if not unpacking.eof or unpacking.unused_data:
        raise InvalidParameter("The gzipped code is cut off or has something behind it", "file")
    return source


def check_packed_size(size: int) -> None:
    if size > GZIP_BYTES_MAX:
        raise TooLarge(f"The code is larger than {GZIP_BYTES_MAX} bytes when gzipped", "file")


def _check_source_size(size: int) -> None:
    if size > SOURCE_BYTES_MAX:
        raise TooLarge(f"The code is larger than {SOURCE_BYTES_MAX} bytes", "file")
