"""Many clients at once: slow, idle, leaving, too many, and of all kinds; nothing of them is left.

Figures under pressure are in benchmarks/serving; here nobody hangs, and nothing leaks.
"""

import asyncio
import base64
import contextlib
import gc
import http.client
import json
import resource
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from trimodal.models import TrimodalModel
from trimodal_serving import connection, guard
from trimodal_serving.engine import Engine

EMBED = {"model": "tiny", "input": "red"}
MANY = {"model": "tiny", "input": ["a red square"] * 20}
MORE_THREADS = 16
"""That pools may grow by, up to a size of theirs."""
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "red"}], "stream": True}

SHORT = {**CHAT, "max_tokens": 4}


def request(path: str, tree: Any) -> bytes:
    body = json.dumps(tree).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture(scope="module", autouse=True)
def files() -> Iterator[None]:
    """As many descriptors as there may be: both ends of each connection are in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Watched:
    """A server, and what it holds."""

    def __init__(self, server: Any, engine: Engine) -> None:
        self.url: str = server.url
        self.config = server._server.config
        self.state = server._server.server_state
        self._loop = server._server.servers[0].get_loop()
        self._engine = engine
        self._most_threads = threading.active_count() + MORE_THREADS

    def connected(self) -> socket.socket:
        address = urlsplit(self.url)
        return socket.create_connection((address.hostname, address.port), timeout=20)

    def works(self) -> None:
        """A request of somebody else is answered."""
        with self.connected() as client:
            client.sendall(request("/v1/embeddings", EMBED))
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")

    def held(self) -> dict[str, int]:
        return {
            "connections": len(self.state.connections),
            "requests": len(self.state.tasks),
            "tasks": len(asyncio.all_tasks(self._loop)),
            "work": self._engine._admission.tokens,
            "bodies": sum(self.config.app._bodies._held.values()),
            "files": len(list(Path("/proc/self/fd").iterdir())),
        }

    def quiet(self) -> dict[str, int]:
        """What is held once nobody asks for anything."""
        end = time.monotonic() + 60
        while self.state.connections or self.state.tasks:
            assert time.monotonic() < end
            time.sleep(0.05)
        return self.held()

    def until_held(self, most: dict[str, int]) -> None:
        """Wait until no more is held than this."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            held = self.held()
            if all(held[name] <= count for name, count in most.items()):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"{self.held()} is held, and not {most}")
        assert threading.active_count() < self._most_threads


@pytest.fixture(scope="module")
def watched(model: TrimodalModel, serve: Callable[..., Any]) -> Iterator[Watched]:
    engine = Engine(lambda: model)
    with serve(engine) as server:
        yield Watched(server.wait_until_ready(), engine)


def ended(client: socket.socket, heard: Counter[bytes]) -> bool:
    """Whether the server has closed a connection; the status that it gave is counted."""
    try:
        received = client.recv(65_536)
    except BlockingIOError:
        return False
    except ConnectionError:
        received = b""
    if received:
        heard[received[9:12]] += 1
    return not received


def trickle(clients: Sequence[socket.socket]) -> None:
    for client in clients:
        with contextlib.suppress(OSError):
            client.send(b"x")


def test_a_thousand_slow_clients_are_given_up_and_hold_nobody_up(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 3.0)
    monkeypatch.setattr(watched.config.app, "_body_seconds", 3.0)
    monkeypatch.setattr(guard, "LINGER_SECONDS", 0.2)
    begun = (b"POST /v1/embeddings HTTP/1.1\r\nhost: loc", request("/v1/embeddings", MANY)[:-99])
    heard: Counter[bytes] = Counter()
    answers, end = 0, time.monotonic() + 120
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(watched.connected()) for _ in range(1000)]
        for i, client in enumerate(slow):
            client.sendall(begun[i % 2])
            client.setblocking(False)
        while slow and time.monotonic() < end:
            watched.works()
            slow = [client for client in slow if not ended(client, heard)]
            answers += bool(slow)
            trickle(slow)
            time.sleep(0.1)
        assert not slow, "each is cut off"
    assert answers, "others are answered meanwhile"
    assert set(heard) == {b"408"}
    watched.works()


def test_two_thousand_idle_connections_hold_nobody_up(watched: Watched) -> None:
    before = watched.quiet()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(watched.connected()) for _ in range(2000)]
        for client in idle:
            client.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
        assert len(watched.state.connections) >= 2000
        watched.works()
    watched.until_held(before)


def test_an_idle_connection_is_closed(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched.config, "timeout_keep_alive", 0.05)
    with watched.connected() as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        received = b""
        while chunk := client.recv(65_536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 200 ")


def test_connections_leave_descriptors_for_everything_else(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.quiet()
    most = 8
    monkeypatch.setattr(connection.resource, "getrlimit", lambda _: (2 * most, 2 * most))
    with contextlib.ExitStack() as stack:
        inside = [stack.enter_context(watched.connected()) for _ in range(8)]
        for client in inside:
            client.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
        for _ in range(50):
            response = http.client.HTTPResponse(stack.enter_context(watched.connected()))
            response.begin()
            assert json.loads(response.read())["error"]["code"] == "overloaded"
            assert (response.status, response.headers["retry-after"]) == (503, "1")
        inside[0].sendall(request("/v1/embeddings", EMBED))
        assert inside[0].recv(65_536).startswith(b"HTTP/1.1 200 ")
    watched.works()
    series = watched.config.app._ledger.metrics.render().decode()
    assert 'trimodal_rejected_total{reason="overloaded"} 50.0' in series


LEAVING = {
    "head": request("/v1/embeddings", EMBED)[:40],
    "body": request("/v1/embeddings", MANY)[:-99],
    "work": request("/v1/embeddings", MANY),
    "stream": request("/v1/chat/completions", CHAT),
}


def leave(watched: Watched, kind: str, how: int) -> None:
    """Send something and be gone: closed, reset, after the first of an answer, or half."""
    with watched.connected() as client:
        client.sendall(LEAVING[kind])
        if how == 1:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == 2 and kind == "stream":
            client.recv(1)
        elif how == 3:
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while client.recv(65_536):
                    pass


def test_a_thousand_clients_that_leave_hold_nothing(watched: Watched) -> None:
    kinds = [(kind, how) for kind in LEAVING for how in range(4)]
    for kind, how in kinds:
        leave(watched, kind, how)
    watched.works()
    before = watched.quiet()
    for i in range(1000):
        leave(watched, *kinds[i % len(kinds)])
    watched.until_held(before)
    watched.works()


def test_overload_is_refused_with_a_time_and_leaves_nothing(
    scripted: Any, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimodal_serving.engine.QUEUED_BATCHES", 8)
    engine = Engine(lambda: scripted, token_budget=4)
    with serve(engine, door=engine._admission.check) as server, contextlib.ExitStack() as stack:
        watched = Watched(server.wait_until_ready(), engine)
        scripted.gate.clear()
        clients = [stack.enter_context(watched.connected()) for _ in range(400)]
        for client in clients:
            client.sendall(request("/v1/embeddings", EMBED))
        assert httpx.get(f"{server.url}/livez", timeout=30).status_code == 200
        end = time.monotonic() + 60
        while len(watched.state.tasks) > 100 and time.monotonic() < end:
            time.sleep(0.02)  # most are answered while nothing is computed
        scripted.gate.set()
        statuses: Counter[int] = Counter()
        for client in clients:
            response = http.client.HTTPResponse(client)
            response.begin()
            error = json.loads(response.read()).get("error", {})
            statuses[response.status] += 1
            if response.status != 200:
                assert error["code"] == "queue_full"
                assert int(response.headers["retry-after"]) >= 1
        assert statuses.keys() == {200, 429}
        assert statuses[429] > statuses[200]
        assert engine._admission.idle
        watched.works()


def mixed(client: httpx.Client, count: int, png: bytes, wav: bytes) -> None:
    """Requests of all kinds, of which one in twenty is bad."""
    picture, sound = (base64.b64encode(data).decode() for data in (png, wav))
    good = ["red", {"image": picture}, {"audio": sound}, {"text": "red", "image": picture}]
    bad = [{"image": sound}, {"audio": picture}, {"image": picture[:40]}]
    for i in range(count):
        item = bad[i // 20 % 3] if i % 20 == 7 else good[i % 4]
        answer = client.post("/v1/embeddings", json={"model": "tiny", "input": [item]})
        assert answer.status_code == (400 if i % 20 == 7 else 200), answer.text
        if i % 20 == 13:
            assert "[DONE]" in client.post("/v1/chat/completions", json=SHORT).text


def test_a_mixed_load_leaves_nothing_behind(watched: Watched, png: bytes, wav: bytes) -> None:
    with httpx.Client(base_url=watched.url, timeout=30) as client:
        mixed(client, 60, png, wav)
        gc.collect()
        objects, held = len(gc.get_objects()), watched.held()  # with the connection of the client
        mixed(client, 120, png, wav)
        watched.until_held(held)
        gc.collect()
        more = len(gc.get_objects()) - objects
    assert more < 600, f"{more} objects more after 120 requests"
