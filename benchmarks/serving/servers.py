"""Servers as processes on one core, and what is asked of them.

with ours(folder, core=0) as server: found = server.load(bodies, seconds=10, clients=8)
"""

import base64
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from benchmarks.serving.load import Order, Row

SERVER_CORE, CLIENT_CORE = 0, 1
NAME = "towers"
READY_SECONDS = 240
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
}


@dataclass(frozen=True)
class Found:
    """What a load met."""

    rows: list[Row]
    probe: list[Row]
    seconds: float
    recovered: float

    @property
    def rate(self) -> float:
        """Answers a second that came in time, the last ones of a load not among them."""
        return sum(code == 200 and due + x <= self.seconds for due, x, code in self.rows) / (
            self.seconds
        )

    def latencies(self, status: int = 200) -> list[float]:
        """Seconds to the answers of one status."""
        return [row[1] for row in self.rows if row[2] == status]

    def quantile(self, q: float, status: int = 200) -> float:
        """Seconds; infinite if there is no such answer."""
        return quantile(self.latencies(status), q)

    def failed(self) -> int:
        """Requests without the answer that they should have."""
        return sum(row[2] != 200 for row in self.rows)


def quantile(values: Sequence[float], q: float) -> float:
    """A quantile; infinite of nothing."""
    return float(np.quantile(values, q)) if values else float("inf")


class Server:
    """A process that answers at a port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, path: str, ready: str) -> None:
        self.process = process
        self.port = port
        self.path = path
        self.url = f"http://127.0.0.1:{port}"
        self._ready = ready
        self.headers: dict[str, str] = {}

    def is_ready(self) -> bool:
        """Whether it says so."""
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(self.url + self._ready, headers=self.headers, timeout=2)
            return answer.status_code == 200
        return False

    def wait(self) -> float:
        """Seconds until it is ready."""
        start = time.perf_counter()
        while not self.is_ready():
            if self.process.poll() is not None or time.perf_counter() - start > READY_SECONDS:
                raise RuntimeError("the server does not become ready")
            time.sleep(0.02)
        return time.perf_counter() - start

    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """One answer."""
        url = self.url + self.path
        answer = httpx.post(url, json={"model": NAME, **body}, headers=self.headers, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def vectors(self, inputs: Sequence[str], modality: str = "text") -> np.ndarray:
        """(N, E) of inputs, one request each."""
        bodies = [{"input": [one], "modality": modality, **FLOATS} for one in inputs]
        return np.array([self.post(body)["data"][0]["embedding"] for body in bodies])

    def load(self, bodies: Sequence[str], seconds: float, **options: Any) -> Found:
        """Put a load on it from another process."""
        return self.begin(bodies, seconds, **options)()

    def begin(self, bodies: Sequence[str], seconds: float, **options: Any) -> Callable[[], Found]:
        """Begin a load; what is returned waits for its end."""
        headers = options.pop("headers", self.headers)
        order = Order(
            self.port,
            self.path,
            list(bodies),
            seconds,
            headers=headers,
            core=CLIENT_CORE,
            **options,
        )
        # a file and not a pipe, which would fill while nobody reads it
        out = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving.load"], stdin=subprocess.PIPE, stdout=out
        )
        assert process.stdin is not None  # noqa: S101 - it was asked for
        process.stdin.write(json.dumps(asdict(order)).encode())
        process.stdin.close()

        def end() -> Found:
            if process.wait() != 0:
                raise RuntimeError("the load failed")
            with out:
                out.seek(0)
                tree = json.load(out)
            rows, probe = ([(a, b, c) for a, b, c in tree[key]] for key in ("rows", "probe"))
            return Found(rows, probe, seconds, tree["recovered"])

        return end

    def tree(self) -> list[psutil.Process]:
        """Its processes, the one that listens first."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def memory(self) -> int:
        """Bytes that its processes hold for themselves, and their share of what is shared."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def metric(self, name: str) -> float:
        """One of what `/metrics` shows, 0 if it is not there yet."""
        text = httpx.get(f"{self.url}/metrics", headers=self.headers).text
        values = [line.split()[1] for line in text.splitlines() if line.startswith(name)]
        return sum(map(float, values))


FLOATS = {"encoding_format": "float"}


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, path: str, ready: str) -> Iterator[Server]:
    pinned = ["taskset", "-c", str(SERVER_CORE), *command]
    environment = {**os.environ, **ENVIRONMENT}
    # where it is set, a start compiles torch and transformers anew
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(pinned, env=environment, stdout=log, stderr=log, process_group=0)
        try:
            yield Server(process, port, path, ready)
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-3000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def ours(folder: Path, *options: str) -> Iterator[Server]:
    """`trimodal serve`."""
    port = free_port()
    command = [sys.executable, "-m", "trimodal", "serve", str(folder), "--port", str(port)]
    with _running(
        [*command, "--name", NAME, *options], port, "/v1/embeddings", "/readyz"
    ) as server:
        yield server


@contextlib.contextmanager
def infinity(binary: Path, folder: Path) -> Iterator[Server]:
    """`infinity_emb v2`, as its documentation starts it on a CPU."""
    port = free_port()
    options = {
        "model-id": str(folder.resolve()),
        "served-model-name": NAME,
        "engine": "torch",
        "device": "cpu",
        "host": "127.0.0.1",
        "port": str(port),
    }
    command = [str(binary), "v2", *(x for k, v in options.items() for x in (f"--{k}", v))]
    command += ["--no-bettertransformer", "--no-model-warmup"]
    with _running(command, port, "/embeddings", "/health") as server:
        yield server


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def data_url(content: bytes, kind: str = "jpeg") -> str:
    """A picture as clients send it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def median(values: Sequence[float]) -> float:
    """The median of rounds."""
    return statistics.median(values)
