"""Addresses that others may send us to, and those they may not."""

import socket
from ipaddress import ip_network

import aiohttp
import pytest

from proxy.outside.guard import AddressRefused, AddrInfo, guarded_socket_factory, is_allowed, parse_networks
from tests.outside.servers import Names, Serve, Visit, reply

GLOBAL = ("1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1")
MAPPED_GLOBAL = ("::ffff:8.8.8.8",)
NOT_GLOBAL = (
    "0.0.0.0",  # noqa: S104  # the point is that it is refused
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
)


@pytest.mark.parametrize("address", GLOBAL + MAPPED_GLOBAL)
def test_global_unicast_is_allowed(address: str) -> None:
    assert is_allowed(address)


@pytest.mark.parametrize("address", NOT_GLOBAL)
def test_everything_else_is_refused(address: str) -> None:
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"])
def test_named_network_is_admitted(address: str) -> None:
    allowed = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    assert is_allowed(address, allowed)
    assert not is_allowed("10.2.0.1", allowed)


def test_networks_are_read_from_a_list() -> None:
    assert parse_networks(" 10.0.0.0/8, fd00::/8 ,") == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert parse_networks("") == ()
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        parse_networks("10.0.0.1/8")


def test_refusal_names_no_address() -> None:
    make = guarded_socket_factory()
    info: AddrInfo = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("10.9.8.7", 80))
    with pytest.raises(AddressRefused) as caught:
        make(info)
    assert "10.9.8.7" not in f"{caught.value!s} {caught.value!r}"


async def answer(visit: Visit) -> None:
    await visit.request()
    await visit.send(reply())


@pytest.mark.parametrize("host", ["127.0.0.1", "rebound.example", "[::ffff:127.0.0.1]"])
async def test_guard_sees_the_address_however_it_is_written(serve: Serve, host: str) -> None:
    server = await serve(answer)
    connector = aiohttp.TCPConnector(
        socket_factory=guarded_socket_factory(), resolver=Names(rebound_example="127.0.0.1")
    )
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(server.at(host))
    assert isinstance(caught.value.os_error, AddressRefused)
    assert server.connections == 0


async def test_admitted_network_is_reached(serve: Serve) -> None:
    server = await serve(answer)
    factory = guarded_socket_factory(parse_networks("127.0.0.0/8"))
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=factory)) as session,
        session.get(server.url) as response,
    ):
        assert response.status == 200
