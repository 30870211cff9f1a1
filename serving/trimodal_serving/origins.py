"""Whose pages may use a server: its own, and without keys under a loopback address only.

check_origin(scope["headers"])
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from trimodal_serving.errors import ServingError

LONGEST = 300
"""Characters of a host with its port."""
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9.\-]{1,253}))(?::[0-9]{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_origin(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Return if a request is for a loopback address and not from the page of another site.

    Whoever runs a browser on this machine also runs the pages of strangers in it. These can make a
    name of theirs point here, which the `Host` shows, or send forms, which the `Origin` shows.

    Raises:
        ServingError: 403, for another name or from another page.
    """
    headers = list(headers)
    hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
    origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
    if not all(map(_is_local, hosts)):
        message = "without keys this server answers as localhost or a loopback address only"
        raise ServingError(403, "foreign_host", message)
    own = {f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts}
    if not own.issuperset(origins):
        message = "without keys this server answers no page but its own"
        raise ServingError(403, "foreign_origin", message)


def check_site(path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Return if a browser does not say that the page of another site sends the request.

    A proxy that adds a key to what a browser sends adds it to what such a page sends, too. A link
    to the playground is let in.

    Raises:
        ServingError: 403, for a request from another page.
    """
    heads = dict(headers)
    linked = path == "/" and heads.get(b"sec-fetch-mode") == b"navigate"
    if heads.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and not linked:
        raise ServingError(403, "foreign_origin", "this server answers no page but its own")


def _is_local(authority: str) -> bool:
    return len(authority) <= LONGEST and _is_own(authority)


@lru_cache(1024)
def _is_own(authority: str) -> bool:
    found = _AUTHORITY.fullmatch(authority)
    return found is not None and is_loopback(found[1] or found[2])
