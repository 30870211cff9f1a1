"""Addresses of hosts, and which of them anybody on the internet could reach as well.

all(map(is_public, resolved("images.example.org", 443)))
"""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

_CLOSED_4 = [
    IPv4Network(text)
    for text in (
        "192.0.0.0/24",  # of protocols; some of it counts as global
        "192.88.99.0/24",  # relays of 6to4, which lead anywhere
        "168.63.129.16/32",  # the host below a machine of Azure, which only that machine reaches
    )
]
_UNICAST_6 = IPv6Network("2000::/3")
"""All that is given out; without it are IPv4 in other clothes, NAT64, local and multicast."""
_CLOSED_6 = [
    IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo and other protocols, which hold an IPv4 address or a key
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documents; old versions of ipaddress do not know
    )
]


def is_public(text: str) -> bool:
    """Whether an address is one host of the internet, and none of this machine or its networks.

    Raises:
        ValueError: it is no address.
    """
    address = ip_address(text)
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    return address in _UNICAST_6 and not any(address in network for network in _CLOSED_6)


def resolved(name: str, port: int) -> list[str]:
    """The addresses of a name, as this machine looks it up; waits for the network.

    Raises:
        OSError: it has none.
        UnicodeError: it can have none.
    """
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
