"""Which addresses the site may connect to on somebody else's behalf.

Customers' code and customers' configuration name hosts. Without this filter such a name could
reach what only the server itself can reach: loopback, the private network, a cloud's metadata.

E1  A name is refused unless every one of its addresses is allowed: with some of them allowed, who
    controls the name would get through by trying again.
E2  A connection is made only to an address that was checked, without asking for the name again:
    the second answer may differ (DNS rebinding).
E3  The address is checked once more when its socket is made, so that no way through the HTTP
    client (a literal address, a redirect that it follows) goes past the check.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Looks a name up: (host, port) -> addresses as text. Raises OSError.
LookUp = Callable[[str, int], Awaitable[list[str]]]

LOOK_UPS_AT_ONCE = 4  # of one session; the site has LOOK_UP_THREADS for all of them
LOOK_UP_THREADS = 16
CONNECT_LIMIT_S = 10.0

# IANA's special-purpose registry, written out: what `is_global` covers depends on Python's version.
REFUSED_V4 = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata service answers in it
        "127.0.0.0/8",
        "168.63.129.16/32",  # a public address in form, and the metadata service of a cloud
        "169.254.0.0/16",  # link-local; nearly every cloud's metadata service
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
REFUSED_V6 = tuple(
    ipaddress.ip_network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo (2001::/32) among them
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries an IPv4 address of the sender's choice
        "3fff::/20",
    )
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(OSError):
    """The host has an address that the policy does not allow."""

    def __init__(self, host: str) -> None:
        super().__init__(f"requests to {host} are not allowed")


@dataclass(frozen=True)
class EgressPolicy:
    """Public addresses, and those of `allow` (STATEBACKED_EGRESS_ALLOW)."""

    allow: tuple[Network, ...] = ()

    def allows(self, ip: str | Address) -> bool:
        """May a connection be made to `ip`? What is not an address in its usual form is refused."""
        try:
            address = _destination(ip)
        except ValueError:
            return False
        return _is_public(address) or any(address in network for network in self.allow)

    def check_host(self, host: str) -> None:
        """Raise AddressRefused if `host` is an address that isn't allowed, in whatever notation.

        A name passes: FilteringResolver decides about it. `0x7f.1`, `2130706433` and `0177.0.0.1`
        are addresses to a system's resolver; URL parsers write them as `127.0.0.1`, so who still
        has another form bypassed one.
        """
        host = host.removeprefix("[").removesuffix("]")
        last_label = host.rstrip(".").rpartition(".")[2]
        is_address = ":" in host or last_label[:1].isdigit() or not last_label
        if is_address and not self.allows(host):
            raise AddressRefused(host)


def _destination(ip: str | Address) -> Address:
    """The address that packets to `ip` end up at: IPv4 behind its IPv6 notations."""
    address = ipaddress.ip_address(ip.partition("%")[0]) if isinstance(ip, str) else ip
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in REFUSED_V4)
    return address in GLOBAL_UNICAST_V6 and not any(address in network for network in REFUSED_V6)


async def look_up(host: str, port: int) -> list[str]:
    """The system's answer for `host`, in threads of our own.

    A name server that doesn't answer holds a thread for many seconds: the event loop's shared
    threads must not be the ones that wait.
    """
    loop = asyncio.get_running_loop()
    infos = await loop.run_in_executor(
        _look_up_threads(), lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


@cache
def _look_up_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(LOOK_UP_THREADS, thread_name_prefix="egress-look-up")


class FilteringResolver(AbstractResolver):
    """Resolver for aiohttp that answers with allowed addresses or not at all (E1)."""

    def __init__(self, policy: EgressPolicy, look_up: LookUp = look_up) -> None:
        self._policy = policy
        self._look_up = look_up
        self._slots = asyncio.Semaphore(LOOK_UPS_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self._policy.check_host(host)
        async with self._slots:
            addresses = await self._look_up(host, port)
        if not addresses:
            raise OSError(f"{host} has no address")
        if not all(self._policy.allows(address) for address in addresses):
            raise AddressRefused(host)
        results = [_resolved(host, port, address) for address in addresses]
        return [r for r in results if family in (socket.AF_UNSPEC, r["family"])]

    async def close(self) -> None:
        pass


def _resolved(host: str, port: int, address: str) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )


def guarded_session(
    policy: EgressPolicy, *, connections: int, look_up: LookUp = look_up
) -> aiohttp.ClientSession:
    """An HTTP session that connects only where `policy` allows.

    It keeps no cookies, checks certificates, and reads neither proxies nor passwords from the
    environment. A refusal surfaces as AddressRefused, or as a ClientConnectorError that has it as
    `os_error`.
    """

    def make_socket(address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, destination = address
        if not policy.allows(str(destination[0])):
            raise AddressRefused(str(destination[0]))
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        resolver=FilteringResolver(policy, look_up),
        socket_factory=make_socket,
        use_dns_cache=False,  # E2: each connection has one look-up of its own
        limit=connections,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT_S),
        trust_env=False,
    )
