import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from trimodal.batch import Modality
from trimodal_serving import fetcher as module
from trimodal_serving.caller import Caller, acting
from trimodal_serving.errors import ServingError
from trimodal_serving.fetcher import Fetcher
from trimodal_serving.hosts import Hosts
from trimodal_serving.media import LinkedMedium, RawMedium

NAME = "images.example.org"
FILE = bytes(range(256)) * 40
SECRET = b"what the host says"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes = FILE, status: str = "200 OK", *headers: str) -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers))
    return f"{head}\r\n\r\n".encode() + body


class Site:
    """A host on this machine that says the same to everybody, and remembers what it was asked."""

    def __init__(self, says: bytes | Answer, tls: ssl.SSLContext | None = None) -> None:
        self._says = says
        self._tls = tls
        self.asked: list[str] = []
        self.inside = 0
        self.most = 0
        """Connections that were open at the same time."""
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            said = asyncio.ensure_future(self._say(writer))
            left = asyncio.ensure_future(reader.read())
            await asyncio.wait((said, left), return_when=asyncio.FIRST_COMPLETED)
            said.cancel()
            writer.close()
            await left
        self.inside -= 1

    async def _say(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if isinstance(self._says, bytes):
                writer.write(self._says)
            else:
                await self._says(writer)
            await writer.drain()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Site"]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def is_left(self) -> None:
        """Return once nobody is connected any more."""
        while self.inside:
            await asyncio.sleep(0.001)


def linked(port: int, host: str = "127.0.0.1", scheme: str = "http") -> LinkedMedium:
    return LinkedMedium(Modality.VISION, f"{scheme}://{host}:{port}/a.png?b=1")


def by_address(site: Site, **options: Any) -> Fetcher:
    return Fetcher(Hosts([f"127.0.0.1:{site.port}"]), **options)


async def fetch(fetcher: Fetcher, *media: LinkedMedium) -> list[RawMedium]:
    places = [(f"input[{i}]", medium) for i, medium in enumerate(media)]
    try:
        return await fetcher.media(places)
    finally:
        fetcher.close()


def fetched(says: bytes | Answer, **options: Any) -> tuple[bytes, Site]:
    """What is fetched from a site that is named by its address."""

    async def main() -> tuple[bytes, Site]:
        async with Site(says).open() as site:
            try:
                (medium,) = await fetch(by_address(site, **options), linked(site.port))
            finally:
                await site.is_left()
        return medium.data, site

    return asyncio.run(main())


def refused(says: bytes | Answer, **options: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        fetched(says, **options)
    assert caught.value.param == "input[0]"
    assert SECRET.decode() not in caught.value.message
    return caught.value


def test_a_file_comes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    data, site = fetched(answer(FILE, "200 OK", "set-cookie: a=b", "content-type: text/html"))
    assert data == FILE
    line, *heads = site.asked[0].rstrip().lower().split("\r\n")
    assert line == "get /a.png?b=1 http/1.1"
    assert dict(head.split(": ") for head in heads) == {
        "host": f"127.0.0.1:{site.port}",
        "user-agent": "trimodal",
        "accept": "image/*",
        "accept-encoding": "identity",
        "connection": "close",
    }


def test_a_file_may_come_in_chunks() -> None:
    chunks = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n2\r\nfg\r\n0\r\n\r\n"
    )
    assert fetched(chunks)[0] == b"abcdefg"


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        (answer(SECRET, "408 Request Timeout"), "answered 408"),
        (answer(SECRET, "429 Too Many Requests"), "answered 429"),
        (answer(SECRET, "206 Partial Content"), "answered 206"),
        (answer(SECRET, "503 Busy"), "answered 503"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "broke off"),
        (answer(SECRET, "200 OK", "content-encoding: gzip"), "sends it compressed"),
        (answer(FILE)[:-1], "broke off"),
        (b"", "broke off"),
        (SECRET + b"\r\n\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n" + SECRET, "broke off"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n", "broke off"),
    ],
)
def test_what_is_no_file_is_refused(says: bytes, problem: str) -> None:
    error = refused(says)
    assert (error.status, error.code) == (502, "fetch_failed")
    assert error.message.startswith("image could not be fetched: 127.0.0.1 ")
    assert problem in error.message


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        (answer(SECRET, "302 Found", "location: /b.png"), "sends elsewhere (302)"),
        (answer(SECRET, "301 Moved", "location: http://169.254.169.254/"), "sends elsewhere (301)"),
        (answer(SECRET, "304 Not Modified"), "sends elsewhere (304)"),
        (answer(SECRET, "403 Forbidden"), "answered 403"),
        (answer(SECRET, "404 Not Found"), "answered 404"),
        (answer(SECRET, "410 Gone"), "answered 410"),
    ],
)
def test_an_address_that_leads_to_no_file_is_the_fault_of_the_client(
    says: bytes, problem: str
) -> None:
    error = refused(says)
    assert (error.status, error.code) == (400, "fetch_failed")
    assert error.message.startswith("image could not be fetched: 127.0.0.1 ")
    assert problem in error.message
    assert error.envelope()["error"]["type"] == "invalid_request_error"


def test_a_redirect_is_not_followed() -> None:
    async def main() -> Site:
        async with Site(answer(b"", "302 Found", "location: /b.png")).open() as site:
            with pytest.raises(ServingError, match="not followed"):
                await fetch(by_address(site), linked(site.port))
        return site

    assert len(asyncio.run(main()).asked) == 1


def test_a_file_that_says_it_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)

    async def says(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n")
        await asyncio.Event().wait()

    error = refused(says)
    assert (error.status, error.code) == (413, "medium_too_large")


def test_a_file_that_turns_out_too_large_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)

    async def says(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(64))
            await writer.drain()

    error = refused(says)
    assert (error.status, error.code) == (413, "medium_too_large")


async def nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.001)


async def headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.001)


async def continues(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("says", [nothing, drip, headers, continues])
def test_a_slow_host_is_given_up(says: Answer) -> None:
    error = refused(says, seconds=0.1)
    assert (error.status, error.code) == (504, "fetch_timeout")
    assert error.message == "image did not come from 127.0.0.1 within 0.1 s"


def test_a_slow_name_is_given_up() -> None:
    gate = threading.Event()

    def slow(_: str, __: int) -> list[str]:
        gate.wait(20)
        return ["1.1.1.1"]

    try:
        with pytest.raises(ServingError) as caught:
            asyncio.run(fetch(Fetcher(Hosts([NAME]), slow, 0.05), linked(443, NAME, "https")))
    finally:
        gate.set()
    assert caught.value.code == "fetch_timeout"


def named(site: Site, resolve: Callable[[str, int], Sequence[str]]) -> Fetcher:
    return Fetcher(Hosts([f"{NAME}:{site.port}"]), resolve)


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["::1"]],
)
def test_a_name_of_a_private_address_is_refused(addresses: list[str]) -> None:
    async def main() -> Site:
        async with Site(answer()).open() as site:
            with pytest.raises(ServingError) as caught:
                await fetch(named(site, lambda *_: addresses), linked(site.port, NAME))
            assert (caught.value.status, caught.value.code) == (400, "url_not_allowed")
            assert NAME in caught.value.message
            assert all(address not in caught.value.message for address in addresses)
        return site

    assert asyncio.run(main()).asked == []


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means another address the second time is not asked a second time."""
    lookups: list[tuple[str, int]] = []
    monkeypatch.setattr(module, "is_public", lambda address: address == "127.0.0.1")

    def resolve(name: str, port: int) -> list[str]:
        lookups.append((name, port))
        return ["127.0.0.1"] if len(lookups) == 1 else ["169.254.169.254"]

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("somebody else looks a name up")

    async def main() -> Site:
        async with Site(answer()).open() as site:
            monkeypatch.setattr(socket, "getaddrinfo", never)
            (medium,) = await fetch(named(site, resolve), linked(site.port, NAME))
            assert medium.data == FILE
        return site

    site = asyncio.run(main())
    assert lookups == [(NAME, site.port)]
    assert f"host: {NAME}:{site.port}\r\n" in site.asked[0].lower()


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_public", lambda _: True)

    async def main() -> bytes:
        async with Site(answer()).open() as site:
            found = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
            (medium,) = await fetch(named(site, lambda *_: found), linked(site.port, NAME))
        return medium.data

    assert asyncio.run(main()) == FILE


def unknown(name: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def unspeakable(name: str, port: int) -> list[str]:
    raise UnicodeError("label too long")


@pytest.mark.parametrize("resolve", [unknown, unspeakable, lambda *_: []])
def test_a_name_without_an_address_is_refused(resolve: Callable[[str, int], list[str]]) -> None:
    medium = LinkedMedium(Modality.SPEECH, f"https://{NAME}/")
    with pytest.raises(ServingError, match=f"audio could not be fetched: {NAME} has no") as caught:
        asyncio.run(fetch(Fetcher(Hosts([NAME]), resolve), medium))
    assert (caught.value.status, caught.value.code) == (400, "fetch_failed")


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_AGAIN, "later"), OSError("broken")])
def test_a_name_that_cannot_be_looked_up_is_no_fault_of_the_client(error: OSError) -> None:
    def resolve(*_: object) -> list[str]:
        raise error

    with pytest.raises(ServingError, match=f"{NAME} cannot be looked up at the moment") as caught:
        asyncio.run(
            fetch(
                Fetcher(Hosts([NAME]), resolve), LinkedMedium(Modality.VISION, f"https://{NAME}/")
            )
        )
    assert (caught.value.status, caught.value.code) == (502, "fetch_failed")


def test_a_host_that_is_not_there_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServingError, match="cannot be reached") as caught:
        asyncio.run(fetch(Fetcher(Hosts([f"127.0.0.1:{port}"])), linked(port)))
    assert (caught.value.status, caught.value.code) == (502, "fetch_failed")


def test_nothing_is_asked_if_one_address_is_not_allowed() -> None:
    async def main() -> Site:
        async with Site(answer()).open() as site:
            with pytest.raises(ServingError) as caught:
                await fetch(by_address(site), linked(site.port), linked(site.port, "evil.org"))
            assert (caught.value.code, caught.value.param) == ("url_not_allowed", "input[1]")
        return site

    assert asyncio.run(main()).asked == []


def test_an_empty_file_is_named() -> None:
    error = refused(answer(b""))
    assert (error.status, error.code) == (400, "invalid_image")


def test_bytes_are_held_as_they_arrive() -> None:
    held: list[int] = []
    with acting(Caller("alice", on_bytes=held.append)):
        fetched(answer())
    assert sum(held) == len(FILE)

    def full(_: int) -> None:
        raise ServingError(503, "overloaded", "full", retry_after=1)

    with acting(Caller("alice", on_bytes=full)):
        assert refused(answer()).code == "overloaded"


def test_a_tenant_has_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)

    async def says(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.005)
        writer.write(answer())

    async def main() -> tuple[Site, list[RawMedium]]:
        async with Site(says).open() as site:
            media = await fetch(by_address(site), *[linked(site.port)] * 6)
            await site.is_left()
        return site, media

    site, media = asyncio.run(main())
    assert [medium.data for medium in media] == [FILE] * 6
    assert (len(site.asked), site.most) == (6, 2)


@pytest.mark.parametrize("says", [nothing, drip])
def test_who_is_given_up_hangs_up(says: Answer) -> None:
    async def main() -> None:
        async with Site(says).open() as site:
            task = asyncio.create_task(fetch(by_address(site), linked(site.port)))
            while not site.asked:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await site.is_left()

    asyncio.run(main())


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a host of some name has, and what trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    public = certificate.public_bytes(pem)
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "host.pem"
    file.write_bytes(private + public)
    host = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    host.load_cert_chain(file)
    return host, ssl.create_default_context(cadata=public.decode())


@pytest.mark.parametrize("trusted", [NAME, "other.example.org", None])
def test_a_certificate_must_be_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: str | None
) -> None:
    monkeypatch.setattr(module, "is_public", lambda _: True)
    host, trusts = certified(tmp_path, trusted or NAME)
    names: list[str] = []
    host.sni_callback = lambda _, name, __: names.append(name)
    if trusted is not None:
        monkeypatch.setattr(ssl, "create_default_context", lambda: trusts)

    async def main() -> bytes:
        async with Site(answer(), host).open() as site:
            fetcher = named(site, lambda *_: ["127.0.0.1"])
            (medium,) = await fetch(fetcher, linked(site.port, NAME, "https"))
        return medium.data

    if trusted == NAME:
        assert asyncio.run(main()) == FILE
    else:
        with pytest.raises(ServingError, match=f"{NAME} has no certificate that can be trusted"):
            asyncio.run(main())
    assert names == [NAME]
