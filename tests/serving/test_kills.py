"""The server is killed while indexes are made, filled and deleted; what was answered is there.

The process is real, and so is all of it but the model, of which vectors that are sent need nothing.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOTS = [path for path in sys.path if path.endswith(("/src", "/kernels", "/serving"))]
MOTHER = """
import os, pathlib, socket, sys
import lancedb, numpy
from trimodal_serving import store
from trimodal_serving.app import create_app
from trimodal_serving.command import http_server
from trimodal_serving.errors import ServingError

class Model:
    dimensions, generates, signature = (4,), (), numpy.eye(4, dtype="float32")[0]
    loaded = False
    async def start(self):
        self.loaded = True
    def check(self):
        if not self.loaded:
            raise ServingError(503, "loading", "it is not")

store.COMPACT_EVERY = 4
pid = 0
for folder in sys.stdin:
    if pid:
        os.waitpid(pid, 0)
    listener = socket.create_server(("127.0.0.1", 0))
    pid = os.fork()
    if not pid:
        app = create_app({"tiny": Model()}, 1 << 20, indexes=pathlib.Path(folder.strip()))
        http_server(app).run(sockets=[listener])
    print(pid, listener.getsockname()[1], flush=True)
    listener.close()
os.killpg(0, 9)
"""
"""Imports once, which takes seconds, forks a server for each line, and ends with whoever asks."""
SIZE = 8
QUERY = [1.0, 0.0, 0.0, 0.0]

Start = Callable[[], tuple[int, httpx.Client]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server on the folder, once the last is dead; returns its process and a client."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-W", "ignore", "-c", MOTHER]  # LanceDB warns of forks
    mother = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    clients = contextlib.ExitStack()

    def started() -> tuple[int, httpx.Client]:
        assert mother.stdin is not None
        assert mother.stdout is not None
        print(tmp_path / "indexes", file=mother.stdin, flush=True)
        pid, port = map(int, mother.stdout.readline().split())
        transport = httpx.HTTPTransport(retries=5)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=30)
        clients.enter_context(client)
        while client.get("/readyz").status_code != 200:
            time.sleep(0.01)
        return pid, client

    with clients:
        yield started
    assert mother.stdin is not None
    mother.stdin.close()
    mother.wait(30)


def batch(n: int) -> dict[str, Any]:
    """Some items that are new, and as many that take the places of those of the last batch."""
    names = [f"{kind}-{i}" for kind in (n, "same") for i in range(SIZE)]
    items = [{"id": name, "vector": QUERY, "metadata": {"batch": n}} for name in names]
    return {"model": "tiny", "items": items}


class Written:
    """What a server is asked to write, and what it said of it before it died."""

    def __init__(self) -> None:
        self.batches = 0
        """Of which the last may not have been answered."""
        self.answered = 0
        self.gone: set[str] = set()

    def make(self, client: httpx.Client, name: str) -> None:
        tree = {"name": name, "fields": {"batch": "integer"}}
        assert client.post("/v1/indexes", json=tree).status_code == 201

    def fill(self, client: httpx.Client, _: str = "") -> None:
        while True:
            self.batches += 1
            answer = client.post("/v1/indexes/things/items", json=batch(self.batches))
            assert answer.status_code == 200
            self.answered = self.batches

    def delete(self, client: httpx.Client, name: str) -> None:
        self.make(client, name)
        self.gone.add(name)
        client.delete(f"/v1/indexes/{name}")

    def check(self, client: httpx.Client) -> None:
        """All batches that were answered are there, and of another either all or nothing."""
        names = [index["name"] for index in client.get("/v1/indexes").json()["data"]]
        assert "things" in names
        for name in names:
            query = {"model": "tiny", "index": name, "vector": QUERY, "k": 1000}
            answer = client.post("/v1/search", json=query)
            assert answer.status_code == 200, (name, answer.text)
            if name == "things":
                self.batches = self._whole(answer.json()["data"])
                assert self.answered <= self.batches

    def _whole(self, found: list[dict[str, Any]]) -> int:
        last = {one["metadata"]["batch"] for one in found if one["id"].startswith("same")}
        number = max(last, default=0)
        assert len(last) <= 1
        expected = [item["id"] for n in range(1, number + 1) for item in batch(n)["items"]]
        assert sorted(one["id"] for one in found) == sorted(set(expected))
        return number


@contextlib.contextmanager
def killed_when(is_time: Callable[[], bool], pid: int) -> Iterator[None]:
    """Kill a process at the moment at which something is so, or after it if that was missed."""
    missed = threading.Event()

    def wait() -> None:
        while not (is_time() or missed.is_set()):
            pass
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    except httpx.TransportError:
        pass
    finally:
        missed.set()
        thread.join()


def count(folder: Path) -> int:
    try:
        return len(os.listdir(folder))
    except FileNotFoundError:
        return 0


# what is written first, and how many files more there are at the moment of death
MOMENTS: list[tuple[str, str, int]] = [
    ("make", "", 1),
    ("make", "_transactions", 1),
    ("make", "_versions", 1),
    ("fill", "data", 1),
    ("fill", "data", 5),  # four batches, and one file of all of them
    ("fill", "_transactions", 2),
    ("fill", "_versions", 2),
    ("delete", "", 1),
]


def test_a_server_that_is_killed_while_it_writes_has_whole_batches(
    start: Start, tmp_path: Path
) -> None:
    written = Written()
    pid, client = start()
    written.make(client, "things")
    for number, (what, part, more) in enumerate(MOMENTS):
        name = "things" if what == "fill" else f"index-{number}"
        suffix = ".gone" if what == "delete" else ".lance"
        folder = tmp_path / "indexes" / f"{name}{suffix}" / part
        least = count(folder) + more
        with killed_when(lambda: count(folder) >= least, pid):  # noqa: B023 - it ends here
            getattr(written, what)(client, name)
        pid, client = start()
        written.check(client)
        for gone in written.gone:
            assert client.get(f"/v1/indexes/{gone}").status_code == 404
        if what == "make" and client.get(f"/v1/indexes/{name}").status_code == 404:
            written.make(client, name)  # the name of what was never made is free
    answer = client.post("/v1/indexes/things/items", json=batch(written.batches + 1))
    assert answer.status_code == 200
    written.answered = written.batches + 1
    written.check(client)
    assert not list((tmp_path / "indexes").glob("*.gone"))
