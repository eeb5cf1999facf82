"""The multipart form that carries code, as the published clients send it."""

from collections.abc import Mapping
from typing import Any

from rest_framework import parsers
from rest_framework.request import Request

from machines import gzip_code
from statebacked_site.errors import InvalidParameter, TooLarge

# The largest code, and room for the form around it.
FORM_BYTES_MAX = gzip_code.SOURCE_BYTES_MAX + 64 * 1024


class MultiPartParser(parsers.MultiPartParser):
    """Refuses a form that is too large before it reads it."""

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        assert parser_context is not None
        if int(parser_context["request"].META["CONTENT_LENGTH"]) > FORM_BYTES_MAX:
            raise TooLarge(f"The upload is larger than {FORM_BYTES_MAX} bytes", "file")
        return super().parse(stream, media_type, parser_context)


def code_of(request: Request) -> bytes:
    """The uploaded code, gzipped and known to unpack within the limits."""
    file = request.FILES.get("file")
    if file is None:
        raise InvalidParameter("file: the form holds no file of this name", "file")
    content: bytes = file.read()
    encoding = request.POST.get("content-encoding", "")
    if encoding in ("", "identity"):
        return gzip_code.pack(content)
    if encoding != "gzip":
        raise InvalidParameter("content-encoding: is neither gzip nor identity", "content-encoding")
    gzip_code.unpack(content)
    return content
