"""The WebSocket of the API against a real server."""

import asyncio
import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import websockets

from tests.conftest import Server, run_manage_py

WAIT_S = 10.0

# Readable by `owner` and by "admin"; counts, and counts itself up after a while.
MACHINE = """
import { createMachine, assign } from "npm:xstate@5";
export const allowRead = ({ context, authContext }) =>
  authContext.sub !== "stranger" && !context.secret;
export const allowWrite = () => true;
const count = assign({ public: ({ context }) => ({ n: context.public.n + 1 }) });
export default createMachine({
  initial: "idle",
  context: { public: { n: 0 } },
  on: { hide: { actions: assign({ secret: true }) } },
  states: {
    idle: { on: { count: { actions: count }, later: "waiting" } },
    waiting: { after: { 300: { target: "idle", actions: count } } },
  },
});
"""

_names = itertools.count(1)


class Api:
    """Requests to the management API, in the test's own thread."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def call(self, method: str, path: str, body: Any = None, act: str | None = None) -> Any:
        headers = {**self.server.headers, "content-type": "application/json"}
        if act is not None:
            headers["x-statebacked-act"] = json.dumps({"sub": act})
        request = urllib.request.Request(
            f"{self.server.api_url}/{path}",
            json.dumps(body).encode() if body is not None else None,
            headers,
            method=method,
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:
            content = response.read()
        return json.loads(content) if content else None

    def create(self) -> str:
        slug = f"i{next(_names)}"
        self.call("POST", "machines/live", {"slug": slug})
        return slug

    def send(self, slug: str, event: str) -> Any:
        return self.call("POST", f"machines/live/i/{slug}/events", {"event": event})


@pytest.fixture(scope="module")
def api(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Api:
    path = tmp_path_factory.mktemp("live") / "live.mjs"
    path.write_text(MACHINE)
    run_manage_py("deploy", str(path), "--data", str(server.data_dir))
    return Api(server)


class Socket:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def subscribe(self, slug: str, machine: str = "live", request_id: str = "s") -> None:
        await self.send(
            type="subscribe-to-instance",
            requestId=request_id,
            machineName=machine,
            machineInstanceName=slug,
        )

    async def next(self) -> Any:
        return json.loads(await asyncio.wait_for(self.connection.recv(), WAIT_S))

    async def until(self, n: int) -> list[int]:
        """The counts that come, up to and with `n`."""
        counts: list[int] = []
        while not counts or counts[-1] != n:
            counts.append((await self.next())["publicContext"]["n"])
        return counts


def connect(server: Server, query: str | None = None) -> Any:
    if query is None:
        query = f"?token={server.access_token}&x-statebacked-org-id={server.org_id}"
    return websockets.connect(server.api_url.replace("http", "ws") + "/rt" + query)


@pytest.fixture
async def socket(server: Server) -> AsyncIterator[Socket]:
    async with connect(server) as connection:
        yield Socket(connection)


@pytest.fixture
def slug(api: Api) -> str:
    return api.create()


async def test_subscriber_gets_the_present_state_and_every_change(api, socket, slug):
    await socket.subscribe(slug)
    first = await socket.next()
    await asyncio.to_thread(api.send, slug, "count")
    second = await socket.next()

    assert first == {
        "type": "instance-update",
        "machineName": "live",
        "machineInstanceName": slug,
        "ts": first["ts"],
        "state": "idle",
        "publicContext": {"n": 0},
        "tags": [],
        "done": False,
    }
    assert second["publicContext"] == {"n": 1}
    assert second["ts"] > first["ts"]


async def test_change_by_a_timer_is_pushed(api, socket, slug):
    await socket.subscribe(slug)
    await socket.next()
    await asyncio.to_thread(api.send, slug, "later")

    states = [(await socket.next())["state"], (await socket.next())["state"]]

    assert states == ["waiting", "idle"]


async def test_slow_reader_reaches_the_newest_state_and_never_goes_back(api, socket, slug):
    await socket.subscribe(slug)
    await socket.next()

    def count_all() -> None:
        for _ in range(200):
            api.send(slug, "count")

    await asyncio.to_thread(count_all)
    counts = await socket.until(200)

    assert counts == sorted(set(counts))


@pytest.mark.parametrize(
    ("machine", "status", "code"), [("live", 404, "not-found"), ("missing", 404, "not-found")]
)
async def test_missing_instance_is_an_error_of_that_request(api, socket, machine, status, code):
    await socket.subscribe("missing", machine, request_id="r-7")

    error = await socket.next()

    assert (error["type"], error["requestId"]) == ("error", "r-7")
    assert (error["status"], error["code"]) == (status, code)


async def test_reader_whom_the_machine_rejects_gets_403_and_no_update(api, server, slug):
    async with connect(server, "") as connection:
        stranger = Socket(connection)
        await stranger.send(
            type="authenticate",
            token=server.access_token,
            orgId=server.org_id,
            act={"sub": "stranger"},
        )
        assert (await stranger.next())["type"] == "authenticated"
        await stranger.subscribe(slug)
        error = await stranger.next()
        await asyncio.to_thread(api.send, slug, "count")
        await stranger.subscribe("missing")

        assert error["code"] == "rejected-by-machine-authorizer"
        assert (await stranger.next())["code"] == "not-found"  # nothing came in between


async def test_state_that_became_unreadable_is_not_pushed(api, socket, slug):
    await socket.subscribe(slug)
    await socket.next()
    await asyncio.to_thread(api.send, slug, "hide")
    await asyncio.to_thread(api.send, slug, "count")
    await socket.subscribe("missing")

    assert (await socket.next())["code"] == "not-found"


async def test_unsubscribed_reader_hears_nothing_more(api, socket, slug):
    await socket.subscribe(slug)
    await socket.next()
    await socket.send(
        type="unsubscribe-from-instance",
        requestId="u",
        machineName="live",
        machineInstanceName=slug,
    )
    await socket.subscribe("missing")
    await socket.next()
    await asyncio.to_thread(api.send, slug, "count")
    await socket.subscribe("missing")

    assert (await socket.next())["code"] == "not-found"


async def test_events_and_creations_over_the_socket_are_answered(api, socket):
    slug = f"i{next(_names)}"
    await socket.send(type="create-instance", requestId="1", machineName="live", slug=slug)
    created = await socket.next()
    names = {"machineName": "live", "machineInstanceName": slug}
    for n in range(20):
        await socket.send(type="send-event", requestId=f"e{n}", event="count", **names)
    answers = [await socket.next() for _ in range(20)]

    assert created["state"]["publicContext"] == {"n": 0}
    assert {answer["requestId"] for answer in answers} == {f"e{n}" for n in range(20)}
    assert sorted(a["state"]["publicContext"]["n"] for a in answers) == list(range(1, 21))


async def test_event_with_an_idempotency_key_is_applied_once(api, socket, slug):
    message = {
        "type": "send-event",
        "machineName": "live",
        "machineInstanceName": slug,
        "event": {"type": "count"},
        "idempotencyKey": "k1",
    }
    for request_id in "ab":
        await socket.send(requestId=request_id, **message)

    answers = [await socket.next(), await socket.next()]

    assert [a["state"]["publicContext"]["n"] for a in answers] == [1, 1]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"type":"unknown"}',
        '{"type":"subscribe-to-instance"}',
        '{"type":"subscribe-to-instance","requestId":5,"machineName":"m","machineInstanceName":"i"}',
        "[" * 5_000,
        "\u0000",
    ],
)
async def test_malformed_message_is_an_error_and_the_connection_stays(api, socket, slug, text):
    await socket.connection.send(text)
    error = await socket.next()
    await socket.subscribe(slug)

    assert (error["type"], error["status"]) == ("error", 400)
    assert (await socket.next())["type"] == "instance-update"


async def test_connection_without_a_token_has_to_authenticate_first(api, server, slug):
    async with connect(server, "") as connection:
        socket = Socket(connection)
        await socket.subscribe(slug)
        refused = await socket.next()

        assert refused["parameter"] == "token"


async def test_bad_token_gets_no_connection(api, server):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with connect(server, "?token=bad"):
            pass

    assert refused.value.response.status_code == 403


async def test_connection_ends_with_its_key(api, server, slug):
    key = api.call("POST", "keys", {"name": "short", "scopes": ["state.read", "events.write"]})
    async with connect(server, f"?token={sign(key['id'], key['key'])}") as connection:
        socket = Socket(connection)
        await socket.subscribe(slug)
        await socket.next()
        await asyncio.to_thread(api.call, "DELETE", f"keys/{key['id']}")

        with pytest.raises(websockets.ConnectionClosed):
            await socket.next()


async def test_connection_ends_when_its_token_expires(api, server, slug):
    key = api.call("POST", "keys", {"name": "brief", "scopes": ["state.read"]})
    token = sign(key["id"], key["key"], for_s=2)
    async with connect(server, f"?token={token}") as connection:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await Socket(connection).next()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403


async def test_deleted_instance_is_told(api, socket, slug):
    import base64
    import hashlib
    import hmac

    await socket.subscribe(slug, request_id="r-9")
    await socket.next()
    digest = hmac.new(b"live", slug.encode(), hashlib.sha256).digest()
    confirmation = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    await asyncio.to_thread(
        api.call,
        "DELETE",
        f"machines/live/i/{slug}",
        {
            "dangerDataWillBeDeletedForever": True,
            "hmacSha256OfMachineInstanceNameWithMachineNameKey": confirmation,
        },
    )

    error = await socket.next()

    assert (error["requestId"], error["status"]) == ("r-9", 404)


def sign(key_id: str, secret: str, for_s: int = 3_600) -> str:
    """A token as @statebacked/token signs it."""
    from joserfc import jwt
    from joserfc.jwk import OctKey

    claims = {
        "aud": "https://api.statebacked.dev/",
        "exp": int(time.time()) + for_s,
        "act": {"sub": "u_1"},
    }
    header = {"alg": "HS256", "kid": key_id}
    return jwt.encode(header, claims, OctKey.import_key(secret.encode()))


def test_texts_are_json_whatever_the_state_holds():
    from instances.engine.store import InstanceRow
    from instances.realtime import update_text

    row = InstanceRow(
        1, 1, 0, 2, 5, '{"state":"a","tags":["\\u2028"],"done":false}', "", "{}", "[]"
    )

    assert msgspec.json.decode(update_text("m", "i", row))["tags"] == ["\u2028"]
