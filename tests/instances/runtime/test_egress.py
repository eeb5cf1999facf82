"""Addresses that nobody may be led to."""

import ipaddress

import aiohttp
import pytest
from aiohttp import web

from instances.runtime.egress import (
    AddressRefused,
    EgressPolicy,
    FilteringResolver,
    guarded_session,
    look_up,
)

PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "172.15.255.255",
    "172.32.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "2606:4700:4700::1111",
    "2a00:1450:4001:82a::200e",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",  # 1.1.1.1 behind NAT64
]

REFUSED = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",  # metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # metadata
    "169.254.169.254",  # metadata
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",  # metadata
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # IPv4-compatible
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",  # Teredo
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",  # 6to4
    "2002:101:101::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",  # metadata
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]

# What some resolvers take for 127.0.0.1, and other things that are no address.
NOTATIONS = [
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "::ffff:7f00:1",
    "1.2.3.4.5",
    "",
    ".",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_allowed(address):
    assert EgressPolicy().allows(address)
    EgressPolicy().check_host(address)


@pytest.mark.parametrize("address", REFUSED)
def test_special_address_is_refused(address):
    assert not EgressPolicy().allows(address)


@pytest.mark.parametrize("host", [*REFUSED, *NOTATIONS])
def test_host_that_is_a_refused_address_is_refused(host):
    with pytest.raises(AddressRefused):
        EgressPolicy().check_host(host)


@pytest.mark.parametrize("host", ["example.com", "localhost", "7-eleven.com", "0x.example.org"])
def test_name_is_left_to_the_resolver(host):
    EgressPolicy().check_host(host)


def test_allow_list_adds_to_what_is_public():
    policy = EgressPolicy((ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/64")))

    assert policy.allows("10.1.2.3")
    assert policy.allows("::ffff:10.1.2.3")
    assert policy.allows("fd00::5")
    assert policy.allows("1.1.1.1")
    assert not policy.allows("10.2.0.1")
    assert not policy.allows("fd00:0:0:1::5")
    assert not policy.allows("127.0.0.1")


def answering(*answers: list[str]):
    """A look-up whose n-th call answers with the n-th list of addresses."""
    left = list(answers)

    async def look_up(host: str, port: int) -> list[str]:
        return left.pop(0)

    return look_up


async def test_name_is_refused_unless_all_of_its_addresses_are_allowed():
    resolver = FilteringResolver(EgressPolicy(), answering(["1.1.1.1", "10.0.0.1"]))

    with pytest.raises(AddressRefused, match=r"example\.com"):
        await resolver.resolve("example.com", 443)


async def test_name_with_public_addresses_resolves_to_them():
    resolver = FilteringResolver(EgressPolicy(), answering(["1.1.1.1", "2606:4700::1111"]))

    found = await resolver.resolve("example.com", 443)

    assert [entry["host"] for entry in found] == ["1.1.1.1", "2606:4700::1111"]


async def test_name_without_address_is_an_error():
    with pytest.raises(OSError, match="no address"):
        await FilteringResolver(EgressPolicy(), answering([])).resolve("example.com", 443)


async def test_localhost_is_refused_by_what_the_system_says_about_it():
    with pytest.raises(AddressRefused):
        await FilteringResolver(EgressPolicy(), look_up).resolve("localhost", 80)


@pytest.fixture
async def server_port():
    """A server on 127.0.0.1 whose `/to?url=…` redirects to that address."""

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["url"])

    app = web.Application()
    app.add_routes([web.get("/", hello), web.get("/to", redirect)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_session_connects_nowhere_else_whatever_the_client_does(server_port):
    # An address in the URL and a redirect that the client follows both go past the resolver.
    only = EgressPolicy((ipaddress.ip_network("127.0.0.1/32"),))
    base = f"http://127.0.0.1:{server_port}"

    async with guarded_session(only, connections=1) as session:
        async with session.get(f"{base}/") as response:
            text = await response.text()
        with pytest.raises(aiohttp.ClientConnectorError) as refused:
            await session.get(f"{base}/to?url=http://127.0.0.2:{server_port}/")

    assert text == "hello"
    assert isinstance(refused.value.os_error, AddressRefused)


async def test_each_connection_is_looked_up_once(server_port):
    only = EgressPolicy((ipaddress.ip_network("127.0.0.1/32"),))
    names = answering(["127.0.0.1"], ["127.0.0.2"])
    url = f"http://rebinding.example:{server_port}/"

    async with guarded_session(only, connections=1, look_up=names) as session:
        async with session.get(url, headers={"connection": "close"}) as response:
            first = response.status
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)

    assert first == 200
