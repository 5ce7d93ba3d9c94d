"""Addresses that others may send us to, and those they may not."""

import socket
from ipaddress import ip_network

import aiohttp
import pytest

from proxy.outside.guard import AddressRefused, AddrInfo, guarded_socket_factory, is_allowed, parse_networks
from tests.outside.addresses import ALLOWED, REFUSED
from tests.outside.servers import RawServer, Serve, Visit, names_for, reply

CASES = {**dict.fromkeys(REFUSED, False), **dict.fromkeys(ALLOWED, True)}


class LetThrough(OSError):
    """The guard gave a socket, which is not used: nothing leaves this machine."""


async def ask(server: RawServer, host: str, addresses: str) -> tuple[Exception, set[str]]:
    """How the attempt to reach a host ended, and to which addresses the guard gave a socket."""
    guard, met = guarded_socket_factory(), set[str]()

    def open_socket(info: AddrInfo) -> socket.socket:
        guard(info).close()
        met.add(str(info[4][0]))
        raise LetThrough

    resolver = names_for(host, addresses) if addresses else None
    connector = aiohttp.TCPConnector(socket_factory=open_socket, resolver=resolver)
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientError) as caught:
            await session.get(server.at(host))
    return caught.value, met


@pytest.mark.parametrize("case", CASES)
async def test_only_global_addresses_are_connected_to_however_they_are_written(serve: Serve, case: str) -> None:
    server = await serve(answer)
    host, addresses = (REFUSED | ALLOWED)[case]
    error, met = await ask(server, host, addresses)
    assert server.connections == 0
    if CASES[case]:
        assert isinstance(error, aiohttp.ClientConnectorError)
        assert met == {address for address in addresses.split() or [host.strip("[]")] if address != "10.0.0.1"}
    else:
        assert met == set()
        assert isinstance(getattr(error, "os_error", error), AddressRefused | aiohttp.InvalidURL)


def test_what_is_no_address_is_refused() -> None:
    """A socket would read some of these as loopback."""
    for text in ("2130706433", "127.1", "0177.0.0.1", "0x7f.1", "127.0.0.1.", "localhost", "films.example", "", "%lo"):
        assert not is_allowed(text, parse_networks("0.0.0.0/0, ::/0"))


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


async def test_admitted_network_is_reached(serve: Serve) -> None:
    server = await serve(answer)
    factory = guarded_socket_factory(parse_networks("127.0.0.0/8"))
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=factory)) as session,
        session.get(server.url) as response,
    ):
        assert response.status == 200
