"""
Keeps requests to URLs that others chose away from addresses that are ours.

It sits where each socket is made and so sees the address that is really connected to; a look at the
URL or at DNS before would not know what the name resolves to a moment later.
"""

import errno
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Network = IPv4Network | IPv6Network
AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]
"""What `getaddrinfo` gives for one address; the last item begins with the address itself."""

SocketFactory = Callable[[AddrInfo], socket.socket]

# Written out rather than asked of `is_global`, whose answers change between Python's patch releases.
_NOT_GLOBAL_V4: tuple[IPv4Network, ...] = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network, unspecified
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared with a carrier's customers
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, and the metadata services of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunneling
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)

_GLOBAL_V6 = IPv6Network("2000::/3")
"""All that is handed out as global unicast; loopback, local, multicast and NAT64 lie outside."""

_NOT_GLOBAL_V6: tuple[IPv6Network, ...] = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries any IPv4 address inside
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)


class AddressRefused(OSError):
    """The address is not one that others may send us to; it is not named, so that nobody learns it."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "address not allowed")


def parse_networks(text: str) -> tuple[Network, ...]:
    """A comma list of CIDRs. Raises ValueError that names the bad one."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def is_allowed(address: str, allowed: Sequence[Network] = ()) -> bool:
    """
    Whether it is global unicast or lies in one of the named networks.

    Not where it is no address as those are written today, though a socket would take it for one:
    `127.1`, `0x7f.1` and `2130706433` are loopback.
    """
    try:
        ip = _unwrapped(address)
    except ValueError:
        return False
    return _is_global(ip) or any(ip in network for network in allowed)


def guarded_socket_factory(allowed: Sequence[Network] = ()) -> SocketFactory:
    """For aiohttp's `TCPConnector(socket_factory=...)`; the factory raises AddressRefused."""
    networks = tuple(allowed)

    def open_socket(info: AddrInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), networks):
            raise AddressRefused
        return socket.socket(family=family, type=kind, proto=protocol)

    return open_socket


def _unwrapped(address: str) -> IPv4Address | IPv6Address:
    # A zone (`fe80::1%eth0`) says which interface, not which address.
    ip = ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return mapped or ip


def _is_global(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _NOT_GLOBAL_V4)
    return ip in _GLOBAL_V6 and not any(ip in network for network in _NOT_GLOBAL_V6)
