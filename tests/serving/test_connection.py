import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from trimodal_serving import connection as module
from trimodal_serving.command import http_server
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError
from trimodal_serving.guard import Guard, Message, Receive, Send

HEAD = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"


def connected(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


@pytest.fixture
def connection(base_url: str) -> Iterator[socket.socket]:
    with connected(base_url) as connection:
        yield connection


def read_to_end(connection: socket.socket) -> tuple[bytes, dict[str, str]]:
    """The head, which has an id, and the error, once the server has closed the connection."""
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    head, _, body = received.rpartition(b"\r\n\r\n")
    assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}(\r\n|$)", head)
    return head, json.loads(body)["error"]


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n"
        b"content-length: 2\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\nx: y\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET http://localhost/livez HTTP/1.1\r\nx-host: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
    ],
    ids=[
        "garbage",
        "header",
        "negative",
        "two-lengths",
        "both",
        "connect",
        "target",
        "bare-lf",
        "no-host",
        "host-elsewhere",
        "two-hosts",
    ],
)
def test_what_is_not_http_gets_the_envelope(
    connection: socket.socket, base_url: str, sent: bytes
) -> None:
    connection.sendall(sent)
    head, error = read_to_end(connection)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert error["code"] == "bad_http"
    assert httpx.get(f"{base_url}/livez").status_code == 200


def test_before_http_1_1_there_was_no_host(connection: socket.socket) -> None:
    connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
    assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_what_is_no_request_is_counted(connection: socket.socket, base_url: str) -> None:
    def count() -> float:
        found = re.search(
            r'rejected_total\{reason="bad_http"\} (\S+)', httpx.get(f"{base_url}/metrics").text
        )
        return float(found[1]) if found else 0

    before = count()
    connection.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
    _, error = read_to_end(connection)
    assert error["message"] == "a request must name one `Host`"
    assert count() == before + 1


def test_a_broken_chunk_ends_the_request(connection: socket.socket, base_url: str) -> None:
    connection.sendall(
        b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n"
        b"transfer-encoding: chunked\r\n\r\nzz\r\n"
    )
    head, error = read_to_end(connection)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert error["code"] == "bad_http"
    assert httpx.get(f"{base_url}/livez").status_code == 200


@pytest.mark.parametrize("sent", [b"", b"GET /liv", HEAD], ids=["nothing", "line", "head"])
def test_a_head_that_does_not_come_is_given_up(
    monkeypatch: pytest.MonkeyPatch, base_url: str, sent: bytes
) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)
    with connected(base_url) as connection:
        connection.sendall(sent)
        head, error = read_to_end(connection)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert error["code"] == "head_timeout"


def test_the_second_request_of_a_connection_has_the_same_deadline(
    monkeypatch: pytest.MonkeyPatch, connection: socket.socket
) -> None:
    connection.sendall(HEAD + b"\r\n")
    answer = b""
    while not answer.endswith(b'{"status":"live"}'):
        answer += connection.recv(65_536)
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)
    connection.sendall(HEAD)
    head, error = read_to_end(connection)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert error["code"] == "head_timeout"


def test_a_request_in_progress_has_no_deadline_of_its_head(
    monkeypatch: pytest.MonkeyPatch, base_url: str
) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)
    with connected(base_url) as connection:
        connection.sendall(
            b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n"
        )
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        connection.sendall(b"{}")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 400_000,
        HEAD + b"x-long: " + b"x" * 400_000,
        HEAD + b"x: y\r\n" * 100_000,
        HEAD + b"x: y\r\n" * 20_000 + b"\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"x: y\r\n" * 200_000,
    ],
    ids=["target", "header", "headers", "whole", "trailers"],
)
def test_a_head_is_bounded(connection: socket.socket, base_url: str, sent: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # the answer comes before all is sent
        connection.sendall(sent)
    with contextlib.suppress(ConnectionError):
        head, error = read_to_end(connection)
        assert head.startswith(b"HTTP/1.1 431 ")
        assert error["code"] == "head_too_large"
    assert httpx.get(f"{base_url}/livez").status_code == 200


def test_few_requests_wait_behind_another(connection: socket.socket, base_url: str) -> None:
    with contextlib.suppress(ConnectionError):
        connection.sendall((HEAD + b"\r\n") * 5_000)
    answer = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65_536):
            answer += chunk
    assert answer.count(b'{"status":"live"}') < 100
    assert httpx.get(f"{base_url}/livez").status_code == 200


def test_the_end_of_a_body_behind_its_refusal_starts_no_deadline(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Any], scripted: Any
) -> None:
    def door() -> None:
        raise ServingError(429, "queue_full", "full", retry_after=1)

    monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)
    with serve(Engine(lambda: scripted), door=door) as server, connected(server.url) as connection:
        connection.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\n"
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 429 ")
        connection.sendall(b"abc")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_trailer_is_passed_over(connection: socket.socket) -> None:
    connection.sendall(
        b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\n{}\r\n0\r\nhost: elsewhere\r\n\r\n" + HEAD + b"\r\n"
    )
    answer = b""
    while not answer.endswith(b'{"status":"live"}'):
        answer += connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_a_connection_goes_on_behind_a_refusal(serve: Callable[..., Any], scripted: Any) -> None:
    def door() -> None:
        raise ServingError(429, "queue_full", "full", retry_after=1)

    with serve(Engine(lambda: scripted), door=door) as server, connected(server.url) as connection:
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 6\r\n\r\n"
        for first, rest in ((b"", b"abcdef"), (b"abc", b"def"), (b"abcdef", b"")):
            connection.sendall(head + first)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 429 ")
            connection.sendall(rest)
        connection.sendall(HEAD + b"\r\n")
        answer = b""
        while not answer.endswith(b'{"status":"live"}'):
            answer += connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200 ")


class Sending:
    """A server whose answers are some pieces of so many MiB."""

    def __init__(self, pieces: int, size: int) -> None:
        self._pieces = pieces
        self._size = size
        self._server = http_server(Guard(self._answer, 1000))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self.ended = threading.Event()
        """Set when all of an answer was handed over, or nobody was there any more."""

    async def _answer(self, scope: Message, _: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for i in range(self._pieces):
            more = i + 1 < self._pieces
            body = b"x" * (self._size << 20)
            await send({"type": "http.response.body", "body": body, "more_body": more})
        self.ended.set()

    def __enter__(self) -> "Sending":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.force_exit = self._server.should_exit = True
        self._thread.join(20)


def test_who_takes_nothing_of_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.2)
    received = 0
    with Sending(pieces=64, size=1) as server, connected(server.url) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert server.ended.wait(60)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(1 << 20):
                received += len(chunk)
    assert received < 32 << 20, "what the system had taken already"


def test_who_is_slow_gets_all_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 1.0)
    received, start = 0, time.monotonic()
    with Sending(pieces=1, size=32) as server, connected(server.url) as connection:
        connection.sendall(HEAD + b"connection: close\r\n\r\n")
        while chunk := connection.recv(1 << 20):
            received += len(chunk)
            time.sleep(0.05)
    assert received > 32 << 20
    assert time.monotonic() - start > 1.5, "longer than is waited for a client that stands still"


class Written(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def close(self) -> None:
        self.pieces.append(b"closed")

    def is_closing(self) -> bool:
        return b"closed" in self.pieces


def test_every_answer_is_joined(connection: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = module._Joining.write
    monkeypatch.setattr(
        module._Joining, "write", lambda self, data: (written.append(data), write(self, data))
    )
    connection.sendall(HEAD + b"connection: close\r\n\r\n")
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    assert len(written) == 2
    assert b"".join(written) == received


def test_nothing_is_sent_on_a_connection_that_closes() -> None:
    async def main() -> list[bytes]:
        refused = Written()
        joining = module._Joining(refused, asyncio.get_running_loop())
        joining.write(b"head ")
        refused.close()  # by the connection, which has refused what came behind the request
        await asyncio.sleep(0)
        return refused.pieces

    assert asyncio.run(main()) == [b"closed"]


def test_a_head_goes_out_with_what_follows_at_once() -> None:
    """One that nothing follows at once, as where a stream begins late, goes out alone."""

    async def main() -> list[list[bytes]]:
        whole, late, empty = Written(), Written(), Written()
        joining = [module._Joining(one, asyncio.get_running_loop()) for one in (whole, late, empty)]
        for one in joining:
            one.write(b"head ")
        joining[0].write(b"body ")
        joining[2].close()
        await asyncio.sleep(0)
        for one in joining[:2]:
            one.write(b"more")
        await asyncio.sleep(0)
        return [whole.pieces, late.pieces, empty.pieces]

    assert asyncio.run(main()) == [
        [b"head body ", b"more"],
        [b"head ", b"more"],
        [b"head ", b"closed"],
    ]
