"""Media from hosts that the operator named, over connections that go nowhere else.

media = await Fetcher(Hosts(["images.example.org"])).media([("input[0]", linked)])
"""

import asyncio
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, cast

import httpcore

from trimodal_serving.addresses import is_public, resolved
from trimodal_serving.caller import current
from trimodal_serving.errors import ServingError
from trimodal_serving.hosts import Hosts, Target
from trimodal_serving.media import MAX_BYTES, LinkedMedium, RawMedium, too_large

FETCH_SECONDS = 10.0
"""For all media of a request, from the first look at a name to the last byte."""
CONNECT_SECONDS = 3.0
"""For a connection, and again for its TLS."""
MOST_ADDRESSES = 4
"""Of a name, that are tried one after another."""
AT_ONCE = 16
"""Media that are fetched for a tenant at the same time; others of it wait."""
RESOLVERS = 8
"""Threads that look up names, which nothing can interrupt."""

PASSING = (408, 425, 429)
"""Answers of a host that say nothing against the address, which may be asked again."""
NO_ADDRESS = (socket.EAI_NONAME, socket.EAI_NODATA)
"""What a name server says of a name that has none; other errors are of the name server."""

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a name, see `resolved`."""


class Fetcher:
    """Fetches what `Hosts` allows, within bounds on time and bytes.

    A name is looked up once, all its addresses are looked at, and the connection goes to one of
    these: whatever the name means a moment later is not asked. Nothing of the environment counts,
    no redirect is followed, and nothing is unpacked. Belongs to one event loop.
    """

    def __init__(
        self, hosts: Hosts, resolve: Resolve = resolved, seconds: float = FETCH_SECONDS
    ) -> None:
        """Remember them; nothing is connected to before something is fetched.

        Args:
            hosts: from which media may come.
            resolve: looks up a name, in a thread.
            seconds: for all media of a request.
        """
        self._hosts = hosts
        self._resolve = resolve
        self._seconds = seconds
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")
        self._lines: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(AT_ONCE)
        )
        self._tls = ssl.create_default_context()

    async def media(self, linked: Sequence[tuple[str, LinkedMedium]]) -> list[RawMedium]:
        """The files of some media, in their order; if one fails, the others are given up.

        Args:
            linked: each with its place in the request.

        Raises:
            ServingError: an address that is not allowed, before any is asked, or that leads to
                no file (400); a host that does not give the file (502), or not in time (504); a
                file that is too large. `param` says which.
        """
        targets = [self._target(where, medium) for where, medium in linked]
        tasks = [
            asyncio.create_task(self._fetched(where, medium, target))
            for (where, medium), target in zip(linked, targets, strict=True)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _target(self, where: str, medium: LinkedMedium) -> Target:
        try:
            return self._hosts.target(medium)
        except ServingError as error:
            raise error.at(where) from None

    async def _fetched(self, where: str, medium: LinkedMedium, target: Target) -> RawMedium:
        try:
            async with asyncio.timeout(self._seconds), self._lines[current().tenant]:
                data = await _received(medium, target, await self._addresses(target), self._tls)
            return RawMedium(medium.modality, data)
        except TimeoutError:
            problem = f"{target.kind} did not come from {target.host} within {self._seconds:g} s"
            raise ServingError(504, "fetch_timeout", problem, param=where) from None
        except ServingError as error:
            raise error.at(where) from None

    async def _addresses(self, target: Target) -> Sequence[str]:
        """Where the host is; all of it is looked at before any is used."""
        if target.is_address:
            return [target.host]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._resolvers, self._resolve, target.host, target.port
            )
        except socket.gaierror as error:
            if error.errno not in NO_ADDRESS:
                raise _failed(target, "cannot be looked up at the moment") from None
            found = ()
        except UnicodeError:
            found = ()
        except OSError:
            raise _failed(target, "cannot be looked up at the moment") from None
        if not found:
            raise _failed(target, "has no address", 400)
        if not all(map(is_public, found)):
            message = f"{target.kind} is at {target.host}, which is no host of the internet"
            raise ServingError(400, "url_not_allowed", message)
        return found[:MOST_ADDRESSES]

    def close(self) -> None:
        """Look up nothing any more."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to addresses, whatever host is asked for, and closes what it opened."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = [str(ip_address(address)) for address in addresses]  # never a name
        self._backend = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())
        self._opened: list[httpcore.AsyncNetworkStream] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first of the addresses that takes one; called by httpcore.

        Raises:
            httpcore.ConnectError: none does.
            httpcore.ConnectTimeout: the last does not in time.
        """
        *others, last = self._addresses
        share = None if timeout is None else timeout / len(self._addresses)
        for address in others:
            try:
                return self._kept(await self._backend.connect_tcp(address, port, share))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._kept(await self._backend.connect_tcp(last, port, share))

    def _kept(self, stream: httpcore.AsyncNetworkStream) -> httpcore.AsyncNetworkStream:
        self._opened.append(stream)
        return stream

    async def close(self) -> None:
        """Close what was opened; one that is given up while it talks TLS nobody else closes."""
        for stream in self._opened:
            await stream.aclose()


async def _received(
    medium: LinkedMedium, target: Target, addresses: Sequence[str], tls: ssl.SSLContext
) -> bytes:
    """The file at an address.

    Raises:
        ServingError: there is none, or it is too large.
    """
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    headers = [
        ("host", target.authority),
        ("user-agent", "trimodal"),
        ("accept", f"{target.kind}/*"),
        ("accept-encoding", "identity"),
        ("connection", "close"),
    ]
    network = _Pinned(addresses)
    connection = httpcore.AsyncHTTPConnection(url.origin, tls, network_backend=network)
    timeouts = {"timeout": {"connect": CONNECT_SECONDS}}
    try:
        async with connection.stream("GET", url, headers=headers, extensions=timeouts) as response:
            _check(medium, target, response)
            return await _read(medium, response)
    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
        is_tls = isinstance(error.__cause__, ssl.SSLError)
        problem = "has no certificate that can be trusted" if is_tls else "cannot be reached"
        raise _failed(target, problem) from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
        raise _failed(target, "broke off, or does not speak HTTP") from None
    finally:
        await network.close()


def _check(medium: LinkedMedium, target: Target, response: httpcore.Response) -> None:
    """Return if an answer is a file as it is, and not declared too large."""
    headers = {name.lower(): value for name, value in response.headers}
    if 300 <= response.status < 400:
        problem = f"sends elsewhere ({response.status}), which is not followed"
        raise _failed(target, problem, 400)
    if response.status != 200:
        is_address = 400 <= response.status < 500 and response.status not in PASSING
        raise _failed(target, f"answered {response.status}", 400 if is_address else 502)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise _failed(target, "sends it compressed")
    # the parser has looked at it: it is a number
    if int(headers.get(b"content-length", b"0")) > MAX_BYTES:
        raise too_large(medium.modality)


async def _read(medium: LinkedMedium, response: httpcore.Response) -> bytes:
    """The body of an answer, counted as it arrives."""
    hold = current().on_bytes
    data = bytearray()
    async for chunk in response.aiter_stream():
        if len(data) + len(chunk) > MAX_BYTES:
            raise too_large(medium.modality)
        if hold is not None:
            hold(len(chunk))
        data += chunk
    return bytes(data)


def _failed(target: Target, problem: str, status: int = 502) -> ServingError:
    """400 where it is the address that leads to no file, 502 where it is the host."""
    message = f"{target.kind} could not be fetched: {target.host} {problem}"
    return ServingError(status, "fetch_failed", message)
