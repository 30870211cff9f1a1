import socket
from typing import Any

import pytest

from trimodal_serving.addresses import is_public, resolved


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1"])
def test_hosts_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.0.1",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.9",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_others_are_not(address: str) -> None:
    assert not is_public(address)


def test_all_addresses_of_a_name_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str, port: int, **_: Any) -> list[Any]:
        assert (name, port) == ("images.example.org", 443)
        rows = [("1.1.1.1", port), ("1.1.1.1", port), ("2606:4700::1111", port, 0, 0)]
        return [(0, 0, 0, "", row) for row in rows]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    assert resolved("images.example.org", 443) == ["1.1.1.1", "2606:4700::1111"]
