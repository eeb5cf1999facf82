"""What a runner's `fetch` does, against a server that tries things."""

import asyncio
import base64
import gzip
import ipaddress
import json

import pytest
from aiohttp import web

from instances.runtime import broker
from instances.runtime.broker import FetchBroker, ProtocolViolation
from instances.runtime.egress import EgressPolicy, look_up
from tests.instances.runtime import machines
from tests.instances.runtime.engine import PATIENCE_S

LOOPBACK = ipaddress.ip_network("127.0.0.1/32")


class Site:
    """A web server on all loopback addresses; `requests` are those that came."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.arrived = asyncio.Event()  # a request to /stream or /never is being answered
        self.go_on = asyncio.Event()
        self.disconnected = asyncio.Event()

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self.answer)
        self.runner = web.AppRunner(app, handler_cancellation=True)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        await web.TCPSite(self.runner, "127.0.0.2", self.port).start()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        kind = request.match_info["path"]
        if kind.startswith("redirect"):
            status = int(kind.removeprefix("redirect") or 302)
            return web.Response(status=status, headers={"location": request.query["to"]})
        if kind == "loop":
            return web.Response(status=302, headers={"location": "/loop"})
        if kind == "close":
            return web.Response(headers={"connection": "close"})
        if kind == "large":
            return web.Response(body=bytes(broker.BODY_BYTES_MAX + 1))
        if kind == "bomb":
            packed = gzip.compress(bytes(broker.BODY_BYTES_MAX + 1))
            return web.Response(body=packed, headers={"content-encoding": "gzip"})
        if kind == "packed":
            packed = gzip.compress(b"unpacked")
            return web.Response(body=packed, headers={"content-encoding": "gzip"})
        if kind == "cookie":
            return web.Response(headers={"set-cookie": "a=b"})
        if kind in ("stream", "never"):
            return await self.answer_slowly(request, kind)
        return web.Response(status=201, reason="Fine", text="hello", headers={"x-one": "1"})

    async def answer_slowly(self, request: web.Request, kind: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        self.arrived.set()
        try:
            await (self.go_on.wait() if kind == "stream" else asyncio.Event().wait())
        finally:
            if kind == "never":
                self.disconnected.set()
        await response.write(b"second")
        await response.write_eof()
        return response


class Fetches:
    """A broker, and what it tells its runner."""

    def __init__(self, policy: EgressPolicy, look_up=look_up, **limits: float) -> None:
        self.news: dict[str, list[dict]] = {}
        self.changed = asyncio.Event()
        self.broker = FetchBroker(policy, self.send, self.writable, look_up, **limits)
        self.count = 0

    def send(self, line: bytes) -> None:
        kind, fid, text = line.decode().removesuffix("\n").split("\t")
        assert kind == "F"
        self.news[fid].append(json.loads(text))
        self.changed.set()

    async def writable(self) -> None:
        pass

    def start(self, url: str, body: bytes | None = None, **request) -> str:
        self.count += 1
        fid = f"{self.count}"
        self.news[fid] = []
        encoded = None if body is None else base64.b64encode(body).decode()
        request = {"method": "GET", "url": url, "headers": [], "body": encoded} | request
        self.broker.start(fid.encode(), json.dumps(request).encode())
        return fid

    async def until(self, fid: str, *keys: str) -> list[dict]:
        """All news of a fetch, once there is some with one of the keys."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(key in news for news in self.news[fid] for key in keys):
                self.changed.clear()
                await self.changed.wait()
        return self.news[fid]

    async def fetch(self, url: str, body: bytes | None = None, **request) -> tuple[dict, bytes]:
        """Head and body of the answer; the head is {"error": …} if there is none."""
        fid = self.start(url, body, **request)
        news = await self.until(fid, "end", "error")
        chunks = b"".join(base64.b64decode(one["chunk"]) for one in news if "chunk" in one)
        failed = [one for one in news if "error" in one]
        return failed[0] if failed else news[0]["head"], chunks


@pytest.fixture
async def site():
    site = Site()
    await site.start()
    yield site
    await site.runner.cleanup()


@pytest.fixture
async def fetches():
    """May reach 127.0.0.1, and nothing else that isn't public."""
    fetches = Fetches(EgressPolicy((LOOPBACK,)))
    yield fetches
    await fetches.broker.close()


@pytest.fixture
async def named(request):
    """The same, with names that resolve as the test says: `named({"name": [[addresses], …]})`."""
    brokers = []

    def named(names: dict[str, list[list[str]]]) -> Fetches:
        async def look_up(host: str, port: int) -> list[str]:
            return names[host].pop(0)

        brokers.append(Fetches(EgressPolicy((LOOPBACK,)), look_up))
        return brokers[-1]

    yield named
    for fetches in brokers:
        await fetches.broker.close()


async def test_answer_has_status_headers_and_body(site, fetches):
    head, body = await fetches.fetch(site.url("/x?y=%20z"))

    assert (head["status"], head["statusText"], body) == (201, "Fine", b"hello")
    assert ["x-one", "1"] in [[name.lower(), value] for name, value in head["headers"]]
    assert head["url"] == site.url("/x?y=%20z")
    assert head["redirected"] is False
    assert site.requests[0].raw_path == "/x?y=%20z"


async def test_request_is_sent_as_it_was_made(site, fetches):
    await fetches.fetch(
        site.url(),
        b"abc",
        method="POST",
        headers=[["x-a", "1"], ["X-A", "2"], ["content-type", "b/c"]],
    )

    (request,) = site.requests
    assert request.method == "POST"
    assert request.headers.getall("x-a") == ["1", "2"]
    assert request.headers["content-type"] == "b/c"
    assert request.headers["user-agent"] == "statebacked"
    assert site.bodies == [b"abc"]


async def test_headers_of_the_connection_are_ours(site, fetches):
    names = ("Host", "Connection", "Transfer-Encoding", "Content-Length", "Proxy-Authorization")

    head, _ = await fetches.fetch(site.url(), headers=[[name, "7"] for name in names])

    assert head["status"] == 201
    (request,) = site.requests
    assert request.headers["host"] == f"127.0.0.1:{site.port}"
    assert "7" not in request.headers.values()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2:{port}/",
        "http://localhost:{port}/",
        "http://2130706434:{port}/",
        "http://0x7f.2:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.2]:{port}/",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
async def test_address_that_is_not_allowed_is_refused(site, url):
    fetches = Fetches(EgressPolicy())

    head, _ = await fetches.fetch(url.format(port=site.port))
    await fetches.broker.close()

    assert head["error"].endswith("are not allowed")
    assert site.requests == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "only http and https"),
        ("ftp://127.0.0.1/", "only http and https"),
        ("http://user:secret@127.0.0.1/", "user name or password"),
        ("http://127.0.0.1/\r\nx: y", "only http and https"),
        ("http://127.0.0.1/" + "x" * 40_000, "32 KB"),
        ("http:///path", "only http and https"),
    ],
)
async def test_address_that_is_no_web_address_is_refused(fetches, url, words):
    head, _ = await fetches.fetch(url)

    assert words in head["error"]


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "CONNECT"},
        {"method": "TRACE"},
        {"method": "GET / HTTP/1.1\r\nx"},
        {"headers": [["x y", "1"]]},
        {"headers": [["x", "1\r\ny: 2"]]},
        {"headers": [["x", "1\0"]]},
        {"headers": [["x", "1"]] * 201},
        {"body": bytes(broker.BODY_BYTES_MAX + 1)},
    ],
)
async def test_request_that_is_not_allowed_is_refused(site, fetches, request_):
    head, _ = await fetches.fetch(site.url(), **request_)

    assert "error" in head
    assert site.requests == []


async def test_name_with_one_address_that_is_not_allowed_is_refused(site, named):
    fetches = named({"mixed.example": [["127.0.0.1", "127.0.0.2"]]})

    head, _ = await fetches.fetch(site.url(host="mixed.example"))

    assert head == {"error": "requests to mixed.example are not allowed"}
    assert site.requests == []


async def test_name_that_changes_its_address_is_checked_each_time(site, named):
    fetches = named({"rebinding.example": [["127.0.0.1"], ["127.0.0.2"]]})
    url = site.url("/close", host="rebinding.example")

    first, _ = await fetches.fetch(url)
    second, _ = await fetches.fetch(url)

    assert first["status"] == 200
    assert second == {"error": "requests to rebinding.example are not allowed"}
    assert [request.host for request in site.requests] == [f"rebinding.example:{site.port}"]


async def test_redirect_is_followed(site, fetches):
    head, body = await fetches.fetch(site.url("/redirect?to=/there"))

    assert (head["status"], body) == (201, b"hello")
    assert head["url"] == site.url("/there")
    assert head["redirected"] is True


async def test_redirect_to_an_address_that_is_not_allowed_is_refused(site, fetches):
    target = site.url("/secret", host="127.0.0.2")

    head, _ = await fetches.fetch(site.url(f"/redirect?to={target}"))

    assert head == {"error": "requests to 127.0.0.2 are not allowed"}
    assert len(site.requests) == 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://a:b@127.0.0.1/", "http://[/"])
async def test_redirect_to_what_is_no_web_address_is_refused(site, fetches, target):
    head, _ = await fetches.fetch(site.url(f"/redirect?to={target}"))

    assert "error" in head


async def test_redirects_have_an_end(site, fetches):
    head, _ = await fetches.fetch(site.url("/loop"))

    assert head == {"error": "more than 10 redirects"}
    assert len(site.requests) == 11


@pytest.mark.parametrize(
    ("status", "method", "becomes"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (302, "PUT", "PUT"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
    ],
)
async def test_redirect_changes_the_method_as_the_standard_says(
    site, fetches, status, method, becomes
):
    body = None if method == "HEAD" else b"abc"

    await fetches.fetch(
        site.url(f"/redirect{status}?to=/"),
        body,
        method=method,
        headers=[["content-type", "text/plain"]],
    )

    assert [request.method for request in site.requests] == [method, becomes]
    kept = becomes != "GET" and body is not None
    assert site.bodies[1] == (b"abc" if kept else b"")
    if becomes == "GET":
        assert "content-type" not in site.requests[1].headers


async def test_credentials_are_not_carried_to_another_origin(site, named):
    fetches = named({"other.example": [["127.0.0.1"]]})
    secrets = [["authorization", "Bearer x"], ["cookie", "a=b"], ["x-mine", "1"]]

    await fetches.fetch(site.url("/redirect?to=/same"), headers=secrets)
    await fetches.fetch(site.url(f"/redirect?to={site.url('/', 'other.example')}"), headers=secrets)

    _, same, _, other = site.requests
    assert same.headers["authorization"] == "Bearer x"
    assert {"authorization", "cookie"}.isdisjoint(name.lower() for name in other.headers)
    assert other.headers["x-mine"] == "1"


async def test_redirect_can_be_left_to_the_caller(site, fetches):
    manual, _ = await fetches.fetch(site.url("/redirect?to=/x"), redirect="manual")
    refused, _ = await fetches.fetch(site.url("/redirect?to=/x"), redirect="error")

    assert manual["status"] == 302
    assert "redirects" in refused["error"]
    assert len(site.requests) == 2


async def test_cookies_are_not_kept(site, fetches):
    await fetches.fetch(site.url("/cookie"))
    await fetches.fetch(site.url("/"))

    assert "cookie" not in site.requests[1].headers


async def test_body_arrives_while_it_is_being_sent(site, fetches):
    fid = fetches.start(site.url("/stream"))

    news = list(await fetches.until(fid, "chunk"))
    site.go_on.set()
    await fetches.until(fid, "end")

    assert "end" not in news[-1]
    chunks = [base64.b64decode(one["chunk"]) for one in fetches.news[fid] if "chunk" in one]
    assert chunks == [b"first", b"second"]


@pytest.mark.parametrize("path", ["/large", "/bomb"])
async def test_body_that_is_too_large_is_an_error(site, fetches, path):
    head, chunks = await fetches.fetch(site.url(path))

    assert head == {"error": "the response is larger than 10 MB"}
    assert len(chunks) <= broker.BODY_BYTES_MAX


async def test_packed_body_comes_unpacked_and_its_headers_say_so(site, fetches):
    head, body = await fetches.fetch(site.url("/packed"))

    assert body == b"unpacked"
    names = {name.lower() for name, _ in head["headers"]}
    assert names.isdisjoint({"content-encoding", "content-length"})


async def test_abort_ends_the_request(site, fetches):
    fid = fetches.start(site.url("/never"))
    await fetches.until(fid, "chunk")

    fetches.broker.abort(fid.encode())

    async with asyncio.timeout(PATIENCE_S):
        await site.disconnected.wait()
    assert not any("error" in news for news in fetches.news[fid])
    fetches.broker.abort(fid.encode())  # harmless: it may cross the end


async def test_time_is_limited(site):
    fetches = Fetches(EgressPolicy((LOOPBACK,)), time_limit_s=0.1)

    head, body = await fetches.fetch(site.url("/never"))
    await fetches.broker.close()

    assert head == {"error": "127.0.0.1 did not answer in time"}
    assert body == b"first"


async def test_number_of_requests_at_once_is_limited(site, fetches):
    fids = [fetches.start(site.url("/never")) for _ in range(broker.FETCHES_AT_ONCE + 1)]
    for fid in fids[:-1]:
        await fetches.until(fid, "chunk")

    assert len(site.requests) == broker.FETCHES_AT_ONCE
    fetches.broker.abort(fids[0].encode())
    await fetches.until(fids[-1], "chunk")


async def test_requests_that_wait_are_limited(site, fetches):
    limit = broker.FETCHES_AT_ONCE + broker.FETCHES_WAITING
    for _ in range(limit):
        fetches.broker.tick()
        fetches.start(site.url("/never"))
    fetches.broker.tick()

    fid = fetches.start(site.url())

    assert fetches.news[fid] == [{"error": "too many requests at once"}]


async def test_requests_that_fail_at_once_are_limited_too(fetches):
    refused = [fetches.start("http://127.0.0.2/") for _ in range(broker.FETCHES_PER_TICK)]
    for fid in refused:
        await fetches.until(fid, "error")

    too_many = fetches.start("http://127.0.0.2/")
    fetches.broker.tick()
    again = fetches.start("http://127.0.0.2/")
    await fetches.until(again, "error")

    assert fetches.news[too_many] == [{"error": "too many requests at once"}]
    assert fetches.news[again] == [{"error": "requests to 127.0.0.2 are not allowed"}]


async def test_bodies_that_wait_are_limited(site, fetches):
    for _ in range(6):
        fetches.start(site.url("/never"), bytes(broker.BODY_BYTES_MAX), method="POST")

    fid = fetches.start(site.url(), bytes(broker.BODY_BYTES_MAX), method="POST")

    assert "64 MB" in fetches.news[fid][0]["error"]


async def test_server_that_is_not_there_is_an_error(fetches, unused_tcp_port):
    head, _ = await fetches.fetch(f"http://127.0.0.1:{unused_tcp_port}/")

    assert head == {"error": f"could not connect to 127.0.0.1:{unused_tcp_port}"}


async def test_certificate_that_nobody_signed_is_an_error(site, fetches):
    head, _ = await fetches.fetch(f"https://127.0.0.1:{site.port}/")

    assert "certificate" in head["error"]


@pytest.mark.parametrize(
    ("fid", "request_"),
    [
        (b"", b"{}"),
        (b"a b", b"{}"),
        (b"1" * 33, b"{}"),
        (b"1", b"null"),
        (b"1", b'{"method":"GET","url":"http://a/","headers":[],"body":"@"}'),
        (b"1", b'{"method":"GET","url":"http://a/","headers":[["a"]]}'),
        (b"1", b'{"method":"GET","url":"http://a/","headers":[],"redirect":"x"}'),
    ],
)
async def test_request_that_the_harness_would_not_write_is_refused(fetches, fid, request_):
    with pytest.raises(ProtocolViolation):
        fetches.broker.start(fid, request_)


async def test_fetch_of_customers_code_goes_through_the_broker(start, site):
    engine = await start(egress_allow=(LOOPBACK,))
    await engine.add_version(
        1,
        machines.serving(
            """
            const answer = await fetch(input.url, { method: "POST", body: "abc" });
            return [answer.status, answer.url, await answer.text()];
            """
        ),
    )

    event = await engine.run_service(1, url=site.url("/redirect307?to=/there"))

    assert event["output"] == [201, site.url("/there"), "hello"]
    assert site.bodies == [b"abc", b"abc"]


async def test_fetch_of_customers_code_reaches_no_private_address(engine, site):
    await engine.add_version(1, machines.serving("return (await fetch(input.url)).status"))

    event = await engine.run_service(1, url=site.url())

    assert event["error"]["name"] == "TypeError"
    assert event["error"]["message"] == "requests to 127.0.0.1 are not allowed"
    assert site.requests == []


async def test_fetches_end_with_their_runner(start, site):
    engine = await start(egress_allow=(LOOPBACK,))
    await engine.add_version(1, machines.serving("await (await fetch(input.url)).text()"))
    instance = await engine.create(1)
    await engine.send(instance, "go", input={"url": site.url("/never")})
    engine.commit(instance)
    await site.arrived.wait()

    instance.runner.kill("retired")

    async with asyncio.timeout(PATIENCE_S):
        await site.disconnected.wait()
        await instance.runner.wait_closed()


async def test_stopped_service_aborts_its_fetch(start, site):
    engine = await start(egress_allow=(LOOPBACK,))
    await engine.add_version(
        1, machines.serving("await (await fetch(input.url, { signal })).text()")
    )
    instance = await engine.create(1)
    await engine.send(instance, "go", input={"url": site.url("/never")})
    engine.commit(instance)
    await site.arrived.wait()

    await engine.send(instance, "stop")
    engine.commit(instance)

    async with asyncio.timeout(PATIENCE_S):
        await site.disconnected.wait()
