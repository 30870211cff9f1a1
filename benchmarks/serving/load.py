"""A load on a server from a process of its own, which reads an order from stdin.

python -m benchmarks.serving.load < ORDER; see `Order`, the result is JSON on stdout

Nothing is parsed and every body is prepared, so that the load takes little of its core. Latencies
of an open load count from when a request was due, whether or not it could be sent at once.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

LONGEST = 600.0
"""Seconds that an answer is waited for."""


@dataclass
class Order:
    """What is to be sent."""

    port: int
    path: str
    bodies: list[str]
    """Sent in turn; empty for GET."""
    seconds: float
    clients: int = 1
    """Of a closed load, each of which sends its next request when it has its answer."""
    together: bool = False
    """Whether all of these have their answers before one of them sends its next request."""
    rate: float = 0.0
    """Requests a second of an open load, at random times; 0 makes it a closed one."""
    aborted: float = 0.0
    """The share of requests whose client leaves before the answer."""
    headers: dict[str, str] = field(default_factory=dict)
    core: int | None = None
    probe: str = ""
    """A path that is asked every 20 ms meanwhile."""
    recovers: float = 0.0
    """Seconds that an answer takes when all is well, which is waited for after an open load."""


Row = tuple[float, float, int]
"""When a request was due, seconds to its answer, and the status; 0 if there was none."""


class Connection:
    """A connection that is kept, and opened again where the server closes it."""

    def __init__(self, order: Order) -> None:
        self.port = order.port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, message: bytes) -> int:
        """The status of the answer, or 0."""
        try:
            if self.streams is None:
                self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
            reader, writer = self.streams
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(x[15:]) for x in lines if x.startswith(b"content-length:"))
            await reader.readexactly(length)
            if b"connection: close" in lines:
                self.close()
            return int(head[9:12])
        except (OSError, asyncio.IncompleteReadError, StopIteration):
            self.close()
            return 0

    def close(self) -> None:
        """Leave, whatever is still to come."""
        if self.streams is not None:
            self.streams[1].transport.abort()
        self.streams = None


class Load:
    """Carries out an order."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.rows: list[Row] = []
        self.draws = random.Random(1)  # noqa: S311
        self.messages = [_message(order, body) for body in order.bodies or [""]]
        self.spare: list[Connection] = []
        self.recovered = 0.0
        """Seconds from the last request of an open load until all is well."""

    async def run(self) -> list[Row]:
        """Send all of it, and wait for the answers."""
        self.start = time.perf_counter()
        if self.order.rate:
            await self._open()
        elif self.order.together:
            await self._together()
        else:
            await asyncio.gather(*(self._client(i) for i in range(self.order.clients)))
        return self.rows

    async def _together(self) -> None:
        connections, sent = [Connection(self.order) for _ in range(self.order.clients)], 0
        while (due := time.perf_counter()) - self.start < self.order.seconds:
            some = [self.messages[(sent + i) % len(self.messages)] for i in range(len(connections))]
            pairs = zip(connections, some, strict=True)
            await asyncio.gather(*(self._one(one, message, due) for one, message in pairs))
            sent += len(connections)

    async def _client(self, number: int) -> None:
        connection, sent = Connection(self.order), number
        while (due := time.perf_counter()) - self.start < self.order.seconds:
            await self._one(connection, self.messages[sent % len(self.messages)], due)
            sent += self.order.clients

    async def _open(self) -> None:
        due, sent, running = 0.0, 0, set[asyncio.Task[None]]()
        while (due := due + self.draws.expovariate(self.order.rate)) < self.order.seconds:
            await asyncio.sleep(max(0.0, self.start + due - time.perf_counter()))
            task = asyncio.create_task(self._spared(sent, self.start + due))
            running.add(task)
            task.add_done_callback(running.discard)
            sent += 1
        if self.order.recovers:
            await self._recover()
        await asyncio.gather(*running)

    async def _recover(self) -> None:
        connection, end = Connection(self.order), time.perf_counter()
        status, taken = 0, 0.0
        while status != 200 or taken > self.order.recovers:
            start = time.perf_counter()
            status = await connection.send(self.messages[0])
            taken = time.perf_counter() - start
            self.recovered = time.perf_counter() - end
            await asyncio.sleep(0.02)

    async def _spared(self, sent: int, due: float) -> None:
        connection = self.spare.pop() if self.spare else Connection(self.order)
        await self._one(connection, self.messages[sent % len(self.messages)], due)
        self.spare.append(connection)

    async def _one(self, connection: Connection, message: bytes, due: float) -> None:
        status = 0
        patience = LONGEST
        if self.draws.random() < self.order.aborted:
            patience = self.draws.uniform(0.0, 0.05)
        with contextlib.suppress(TimeoutError):
            status = await asyncio.wait_for(connection.send(message), patience)
        if not status:
            connection.close()
        self.rows.append((due - self.start, time.perf_counter() - due, status))


async def probe(order: Order) -> list[Row]:
    """How long a path takes, asked every 20 ms for as long as the load lasts."""
    asked = Order(order.port, order.probe, [], order.seconds, headers=order.headers)
    connection, rows, start = Connection(asked), list[Row](), time.perf_counter()
    message = _message(asked, "")
    while (due := time.perf_counter()) - start < order.seconds:
        status = await connection.send(message)
        rows.append((due - start, time.perf_counter() - due, status))
        await asyncio.sleep(max(0.0, 0.02 - rows[-1][1]))
    return rows


def _message(order: Order, body: str) -> bytes:
    method = "POST" if body else "GET"
    headers = {"host": "127.0.0.1", "content-type": "application/json", **order.headers}
    if body:
        headers["content-length"] = str(len(body.encode()))
    lines = [f"{method} {order.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def carried_out(order: Order) -> dict[str, Any]:
    """The rows of the load and those of the probe."""
    load = Load(order)
    running = asyncio.create_task(load.run())
    probed = await probe(order) if order.probe else []
    return {"rows": await running, "probe": probed, "recovered": load.recovered}


def main() -> None:
    """Answer one order."""
    tree: dict[str, Any] = json.load(sys.stdin)
    order = Order(**tree)
    if order.core is not None:
        os.sched_setaffinity(0, {order.core})
    print(json.dumps(asyncio.run(carried_out(order))))


if __name__ == "__main__":
    main()
