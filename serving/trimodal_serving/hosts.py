"""From which hosts media may be fetched, and what an address asks of one of them.

target = Hosts(["images.example.org", "*.example.net", "10.0.0.7:9000"]).target(medium)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from trimodal.errors import ConfigError
from trimodal_serving.errors import ServingError

if TYPE_CHECKING:  # slow to import, and the command looks at hosts before anything slow
    from trimodal_serving.media import LinkedMedium

PORTS = {"http": 80, "https": 443}
"""What schemes mean without a port; other ports are open only where they are named."""
MAX_URL = 4096
"""Characters of an address; those with a signature in them have one or two thousand."""

# the last label begins with a letter, so that no name is a number that some reader takes for an
# address: 2130706433, 0x7f.1 and 127.1 are all 127.0.0.1 to some
_NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_\-]{1,63}\.)*[a-z][a-z0-9\-]{0,62}")
_ENTRY = re.compile(r"(\*\.)?([a-z0-9._\-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)
# no user, no backslash, no space: there is nothing left that another parser could read otherwise
_URL = re.compile(
    r"(https?)://([a-z0-9._\-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?"
    r"([/?][!-\"$-\[\]-~]*)?(?:#[!-~]*)?",
    re.IGNORECASE,
)

Host = str | IPv4Address | IPv6Address


@dataclass(frozen=True)
class Target:
    """What is asked of which host."""

    scheme: str
    host: str
    """A name in small letters, or an address without brackets."""
    port: int
    path: str
    """With the query."""
    kind: str
    """`image` or `audio`, for messages."""
    is_address: bool
    """Whether the operator named the host by its address, which then may be any."""

    @property
    def authority(self) -> str:
        """The `Host` of a request."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True)
class _Entry:
    host: Host
    below: bool
    """Whether names that end in it are meant, and not itself."""
    port: int | None

    def allows(self, host: Host, port: int) -> bool:
        if port not in (PORTS.values() if self.port is None else (self.port,)):
            return False
        if self.below:
            return isinstance(host, str) and host.endswith(f".{self.host}")
        return host == self.host


class Hosts:
    """The hosts that an operator named, and no others."""

    def __init__(self, entries: Sequence[str]) -> None:
        """Read what the operator wrote.

        Args:
            entries: names, `*.` and a name for all names below it, or addresses; with `:PORT`
                behind it that port is open, and otherwise 80 and 443 are.

        Raises:
            ConfigError: an entry is none of these.
        """
        self._entries = [_entry(text) for text in entries]

    def target(self, medium: "LinkedMedium") -> Target:
        """What a medium's address asks for.

        Raises:
            ServingError: no plain address of http or https, or of a host that is not named.
        """
        found = None if len(medium.url) > MAX_URL else _URL.fullmatch(medium.url)
        host = None if found is None else _host(found[2])
        if found is None or host is None:
            message = f"{medium.kind} must be at a plain address, https://HOST/PATH, in ASCII"
            raise ServingError(400, "url_not_allowed", message)
        scheme = found[1].lower()
        port = int(found[3] or PORTS[scheme])
        if not any(entry.allows(host, port) for entry in self._entries):
            message = (
                f"{medium.kind} is at {host} port {port}, from which this server does not fetch"
            )
            raise ServingError(400, "url_not_allowed", message)
        rest = found[4] or "/"
        path = rest if rest.startswith("/") else f"/{rest}"
        return Target(scheme, str(host), port, path, medium.kind, not isinstance(host, str))


def _entry(text: str) -> _Entry:
    found = _ENTRY.fullmatch(text)
    host = None if found is None else _host(found[2])
    port = None if found is None or found[3] is None else int(found[3])
    if found is None or host is None or not (port is None or 1 <= port <= 65_535):
        raise ConfigError(
            f"fetch from {text}: must be a name such as images.example.org, *.example.org for all "
            "below it, or an address, and may have :PORT behind it; IPv6 stands in brackets"
        )
    below = found[1] is not None
    if below and (not isinstance(host, str) or "." not in host):
        raise ConfigError(f"fetch from {text}: must have two labels behind the star at least")
    return _Entry(host, below, port)


def _host(text: str) -> Host | None:
    """An address or a name in one spelling; None for what is neither."""
    text = text.lower()
    try:
        return IPv6Address(text[1:-1]) if text.startswith("[") else ip_address(text)
    except ValueError:
        return text if _NAME.fullmatch(text) else None
