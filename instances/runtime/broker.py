"""`fetch` for customers' code: a runner has no network, so it asks here (docs/runner-protocol.md).

One broker serves one runner and dies with it. What a runner asks for is hostile input: the address
is checked by egress.py, and everything has a bound.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import re
from collections.abc import Awaitable, Callable
from typing import Literal

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from instances.runtime import egress
from instances.runtime.egress import AddressRefused, EgressPolicy, LookUp

FETCHES_AT_ONCE = 64  # of one runner; more of them wait
FETCHES_WAITING = 448
FETCHES_PER_TICK = 500  # begun in one tick (watchdog.TICK_S), however soon they end
BODY_BYTES_MAX = 10 << 20  # of a request, and of a response
BODIES_BYTES_MAX = 64 << 20  # of all requests that a runner has under way
TIME_LIMIT_S = 90.0
REDIRECTS_MAX = 10
URL_LENGTH_MAX = 32_768
HEADERS_MAX = 200

REDIRECT_STATUS = frozenset((301, 302, 303, 307, 308))
METHODS_REFUSED = frozenset(("CONNECT", "TRACE", "TRACK"))
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]{0,65536}")
URL_TEXT = re.compile(r"https?://[\x21-\x7e]+")

# Those that belong to the connection, which is ours and not the caller's.
HEADERS_OF_CONNECTION = frozenset(
    (
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
CREDENTIALS = ("authorization", "cookie")
HEADERS_OF_BODY = ("content-encoding", "content-language", "content-location", "content-type")


class ProtocolViolation(Exception):
    """A line that no honest harness writes."""


class FetchFailed(Exception):
    """What the calling code gets as a TypeError; the message is for its author."""


class FetchRequest(msgspec.Struct):
    """The JSON of an `F` line; `body` is base64."""

    method: str
    url: str
    headers: list[tuple[str, str]]
    body: str | None = None
    redirect: Literal["follow", "manual", "error"] = "follow"


class Outgoing:
    """The request as it goes to the next address: redirects change it."""

    __slots__ = ("body", "headers", "method", "url")

    def __init__(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes | None
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body

    def follow(self, status: int, location: str) -> None:
        """Aim at `location`, as the fetch standard says for `status`. Raises FetchFailed."""
        try:
            target = self.url.join(URL(location))
        except ValueError as exc:
            raise FetchFailed(f"{self.url.host} redirects to an invalid address") from exc
        _check_url(target)
        turned_by = {303: self.method != "HEAD", 301: self.method == "POST"}
        if turned_by.get(301 if status == 302 else status, False):
            self._become_get()
        if target.origin() != self.url.origin():
            for name in CREDENTIALS:
                self.headers.popall(name, None)
        self.url = target

    def _become_get(self) -> None:
        self.method = "GET"
        self.body = None
        for name in HEADERS_OF_BODY:
            self.headers.popall(name, None)


class FetchBroker:
    """Performs the fetches of one runner.

    `send` writes a line to it; `writable` waits while it is behind with reading.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        send: Callable[[bytes], None],
        writable: Callable[[], Awaitable[None]],
        look_up: LookUp = egress.look_up,
        *,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self._policy = policy
        self._time_limit_s = time_limit_s
        self._send = send
        self._writable = writable
        self._look_up = look_up
        self._slots = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None
        self._fetches: dict[bytes, asyncio.Task[None]] = {}
        self._bodies_bytes = 0
        self._begun = 0  # in this tick

    def tick(self) -> None:
        """Called every watchdog.TICK_S seconds."""
        self._begun = 0

    def start(self, fid: bytes, request: bytes) -> None:
        """Begin the fetch that an `F` line asks for. Raises ProtocolViolation."""
        if fid in self._fetches or not fid.isalnum() or len(fid) > 32:
            raise ProtocolViolation(f"fetch id {fid[:32]!r}")
        self._begun += 1
        too_many = len(self._fetches) >= FETCHES_AT_ONCE + FETCHES_WAITING
        if too_many or self._begun > FETCHES_PER_TICK:
            self._fail(fid, "too many requests at once")
            return
        try:
            outgoing, redirect = _parse(request)
        except FetchFailed as exc:
            self._fail(fid, str(exc))
            return
        size = len(outgoing.body or b"")
        if self._bodies_bytes + size > BODIES_BYTES_MAX:
            self._fail(fid, "the bodies of all requests under way are larger than 64 MB")
            return
        self._bodies_bytes += size
        task = asyncio.get_running_loop().create_task(self._run(fid, outgoing, redirect))
        self._fetches[fid] = task

        def done(_: asyncio.Task[None]) -> None:
            self._bodies_bytes -= size
            self._fetches.pop(fid, None)

        task.add_done_callback(done)

    def abort(self, fid: bytes) -> None:
        """The caller is no longer interested. Unknown ids are those of fetches that just ended."""
        task = self._fetches.get(fid)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancel everything: the runner is gone."""
        tasks = list(self._fetches.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._session is not None:
            await self._session.close()

    async def _run(self, fid: bytes, outgoing: Outgoing, redirect: str) -> None:
        try:
            async with asyncio.timeout(self._time_limit_s), self._slots:
                await self._fetch(fid, outgoing, redirect)
        except FetchFailed as exc:
            self._fail(fid, str(exc))
        except TimeoutError:
            self._fail(fid, f"{outgoing.url.host} did not answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            self._fail(fid, _explain(outgoing.url, exc))

    async def _fetch(self, fid: bytes, outgoing: Outgoing, redirect: str) -> None:
        if self._session is None:
            self._session = egress.guarded_session(
                self._policy, connections=FETCHES_AT_ONCE, look_up=self._look_up
            )
        for hop in range(REDIRECTS_MAX + 1):
            self._policy.check_host(outgoing.url.raw_host or "")
            async with self._session.request(
                outgoing.method,
                outgoing.url,
                headers=outgoing.headers,
                # A file object is sent in pieces; bytes would be written in one go.
                data=None if outgoing.body is None else io.BytesIO(outgoing.body),
                skip_auto_headers=("Content-Type",),
                allow_redirects=False,
            ) as response:
                location = response.headers.get("location")
                if response.status not in REDIRECT_STATUS or not location or redirect == "manual":
                    await self._answer(fid, response, redirected=hop > 0)
                    return
                if redirect == "error":
                    raise FetchFailed(f"{outgoing.url.host} redirects, and redirect is 'error'")
                status = response.status
            outgoing.follow(status, location)
        raise FetchFailed(f"more than {REDIRECTS_MAX} redirects")

    async def _answer(
        self, fid: bytes, response: aiohttp.ClientResponse, *, redirected: bool
    ) -> None:
        if not 200 <= response.status <= 599:
            raise FetchFailed(f"{response.url.host} answered with status {response.status}")
        too_large = FetchFailed(f"the response is larger than {BODY_BYTES_MAX >> 20} MB")
        if response.method != "HEAD" and (response.content_length or 0) > BODY_BYTES_MAX:
            raise too_large
        head = {
            "status": response.status,
            "statusText": _bytes_as_text((response.reason or "").encode(errors="surrogateescape")),
            "headers": _response_headers(response),
            "url": str(response.url),
            "redirected": redirected,
        }
        self._tell(fid, msgspec.json.encode({"head": head}))
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > BODY_BYTES_MAX:  # counted after decompression
                raise too_large
            await self._writable()
            self._tell(fid, b'{"chunk":"%b"}' % base64.b64encode(chunk))
        self._tell(fid, b'{"end":true}')

    def _fail(self, fid: bytes, message: str) -> None:
        self._tell(fid, msgspec.json.encode({"error": message}))

    def _tell(self, fid: bytes, news: bytes) -> None:
        self._send(b"F\t%b\t%b\n" % (fid, news))


def _parse(text: bytes) -> tuple[Outgoing, str]:
    """What a runner asks for.

    Raises ProtocolViolation for what the harness would never write, and FetchFailed for what an
    author of a machine can get wrong.
    """
    try:
        request = msgspec.json.decode(text, type=FetchRequest)
        body = None if request.body is None else base64.b64decode(request.body, validate=True)
        url = URL(request.url, encoded=True)
    except (msgspec.DecodeError, binascii.Error, ValueError) as exc:
        raise ProtocolViolation("fetch request") from exc
    if not URL_TEXT.fullmatch(request.url) or len(request.url) > URL_LENGTH_MAX:
        raise FetchFailed("only http and https addresses of at most 32 KB can be fetched")
    if not TOKEN.fullmatch(request.method) or request.method.upper() in METHODS_REFUSED:
        raise FetchFailed(f"method {request.method[:20]} is not allowed")
    if body is not None and len(body) > BODY_BYTES_MAX:
        raise FetchFailed(f"the request's body is larger than {BODY_BYTES_MAX >> 20} MB")
    _check_url(url)
    return Outgoing(request.method.upper(), url, _request_headers(request), body), request.redirect


def _check_url(url: URL) -> None:
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise FetchFailed("only http and https addresses can be fetched")
    if url.raw_user is not None or url.raw_password is not None:
        raise FetchFailed("an address that contains a user name or password can't be fetched")


def _request_headers(request: FetchRequest) -> CIMultiDict[str]:
    if len(request.headers) > HEADERS_MAX:
        raise FetchFailed(f"more than {HEADERS_MAX} headers")
    headers = CIMultiDict({"User-Agent": "statebacked"})
    if any(name.lower() == "user-agent" for name, _ in request.headers):
        headers.clear()
    for name, value in request.headers:
        if not TOKEN.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise FetchFailed(f"header {name[:100]!r} is not valid")
        name = name.lower()  # as fetch does; aiohttp joins those that are spelled the same
        if name not in HEADERS_OF_CONNECTION and not name.startswith("proxy-"):
            headers.add(name, value)
    return headers


def _response_headers(response: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    dropped = {"connection", "keep-alive", "transfer-encoding"}
    if "content-encoding" in response.headers:
        # The body is passed on decoded, so both would be wrong for it.
        dropped |= {"content-encoding", "content-length"}
    pairs = [(_bytes_as_text(name), _bytes_as_text(v)) for name, v in response.raw_headers]
    return [(name, value) for name, value in pairs if name.lower() not in dropped]


def _bytes_as_text(raw: bytes) -> str:
    """As fetch decodes header values: a character per byte."""
    return raw.decode("latin-1")


def _explain(url: URL, error: Exception) -> str:
    """A sentence for the author of a machine; nothing about this server's own network."""
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(
        error.os_error, AddressRefused
    ):
        return str(error.os_error)
    if isinstance(error, AddressRefused):
        return str(error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"{url.host} could not be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return f"{url.host} has no certificate that can be verified"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"could not connect to {url.host}:{url.port}"
    if isinstance(error, aiohttp.ClientConnectionError):
        return f"the connection to {url.host} was lost"
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"the response of {url.host} ended too early or could not be decoded"
    return f"the request to {url.host} failed: {error}"
