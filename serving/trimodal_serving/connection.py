"""What uvicorn's connections lack: bounds on what is no body, and our error envelope.

uvicorn.Config(app, http=BoundedConnection)
"""

import asyncio
import http
import json
import resource
import uuid
from typing import NoReturn

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trimodal_serving.errors import ServingError
from trimodal_serving.guard import Guard

HEAD_SECONDS = 10.0
HEAD_BYTES = 1 << 16
"""Of a request's head, of what stands between two pieces of its body, and of what follows it."""
WRITE_SECONDS = 60.0
"""In which a client has to take something of an answer that waits for it."""
PIPELINED = 16
"""Requests of one connection that wait for the answer to another."""
SPARE_FILES = 512
"""Descriptors that connections leave for everything else, or half of all if there are few."""
MOST_CONNECTIONS = 16_384
"""However many descriptors there are; each connection takes memory, too."""
NO_HTTP = "the request is not valid HTTP/1.1"
_BODY = {b"content-length", b"transfer-encoding"}


class BoundedConnection(HttpToolsProtocol):
    """A connection of a client.

    A client that opens a connection, or starts a request on one, has `HEAD_SECONDS` to send the
    whole head; otherwise idle sockets would be held for ever. The parser keeps what it has not
    understood yet, so that is bounded too. A client that takes nothing of its answer for
    `WRITE_SECONDS` is cut off, since it holds what others could have. There are no more connections
    than the limit on open files leaves room for: without descriptors nothing else works either.
    """

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _in_head = True
    _in_message = False
    _head_bytes = 0
    _pending = 0
    """Bytes since the parser understood something that counts elsewhere."""
    _progress = False
    _upgrades = False
    _fault = NO_HTTP

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Start the clock of the first request."""
        super().connection_made(transport)
        if len(self.connections) > _most_connections():
            message = "the server has as many connections as it can hold"
            self._refuse(ServingError(503, "overloaded", message, retry_after=1))
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Stop the clock once a head is complete; start it again with the next request."""
        self._progress = False
        super().data_received(data)
        self._pending = 0 if self._progress else self._pending + len(data)
        if self._pending > HEAD_BYTES:
            self._refuse(_head_too_large())
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        super().connection_lost(exc)
        self._stop()
        self._flows()

    def pause_writing(self) -> None:
        """The client is slower than its answer; start the clock of writing."""
        super().pause_writing()
        self._flows()
        self._expect_less(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self._flows()

    def _expect_less(self, size: int) -> None:
        self._stalled = self.loop.call_later(WRITE_SECONDS, self._look, size)

    def _look(self, before: int) -> None:
        """Cut off a client that took nothing of the bytes that waited for it before."""
        size = self.transport.get_write_buffer_size()
        if size < before:
            self._expect_less(size)
        else:
            self._stalled = None
            self.transport.abort()

    def _flows(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP; called by uvicorn."""
        if self._head_bytes > HEAD_BYTES:
            self._refuse(_head_too_large())
            return
        self._refuse(ServingError(400, "bad_http", self._fault))

    def on_message_begin(self) -> None:
        """A head begins; called by the parser, as are those below."""
        self._in_head = self._in_message = True
        self._upgrades = False
        self._fault = NO_HTTP
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the target.

        Raises:
            ValueError: the head is too large; the parser makes a refusal of it.
        """
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; one that stands behind the body is passed over.

        Raises:
            ValueError: the head is too large.
        """
        if self._in_head:
            self._count(len(name) + len(value) + 4)  # a colon, a space, and the end of the line
            super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            raise ValueError("a head that is too large")

    def on_headers_complete(self) -> None:
        """A head is complete.

        The parser takes what follows a request for another protocol for that protocol, a body too,
        so such a request is the last of its connection and has none.

        Raises:
            ValueError: too many requests wait already, or it cannot be told what it means.
        """
        parser = self.parser
        assert parser is not None  # noqa: S101 - it calls this
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests at once")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and parser.get_http_version() != "1.0"):
            self._doubt("a request must name one `Host`")
        self._upgrades = parser.should_upgrade()
        if self._upgrades and any(name in _BODY and value != b"0" for name, value in self.headers):
            self._doubt("a request that asks for another protocol (`Upgrade`) must have no body")
        self._in_head = False
        self._progress = True
        super().on_headers_complete()
        self.cycle.transport = _Joining(self.transport, self.loop)
        if self._upgrades:
            self.cycle.keep_alive = False

    def _doubt(self, fault: str) -> NoReturn:
        self._fault = fault
        raise ValueError(fault)

    def on_body(self, body: bytes) -> None:
        """A piece of a body, which the guard counts."""
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._progress = True
        self._in_message = False
        super().on_message_complete()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self.cycle is not None and not self._in_message:
            self._stop()
            if self.timeout_keep_alive_task is None:  # the end of a body came behind its answer
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._expire)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        message = f"the head of the request did not arrive within {HEAD_SECONDS:g} s"
        self._refuse(ServingError(408, "head_timeout", message))

    def _refuse(self, error: ServingError) -> None:
        self._stop()
        if self.transport.is_closing():
            return
        if isinstance(self.app, Guard):
            self.app.turned_away(error.code)
        answering = self.cycle is not None and not self.cycle.response_complete
        if not self.pipeline and not (answering and self.cycle.response_started):
            body = json.dumps(error.envelope())
            again = "".join(f"{name}: {value}\r\n" for name, value in error.headers().items())
            head = (
                f"HTTP/1.1 {error.status} {http.HTTPStatus(error.status).phrase}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
                f"connection: close\r\n{again}x-request-id: {uuid.uuid4().hex}\r\n\r\n"
            )
            self.transport.write((head + body).encode())
        self.transport.close()


class _Joining(asyncio.Transport):
    """What an answer is written to: its head goes out with the first of its body.

    Each would be a packet of its own, for which the client wakes.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held = b""
        self._joined = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it, unless it is the first, which waits until the others of this turn are done."""
        if not self._joined and not self._held:
            self._held = bytes(data)
            self._loop.call_soon(self._flush)
            return
        self._joined = True
        held, self._held = self._held, b""
        self._transport.write(held + data if held else data)

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self.write(b"")

    def close(self) -> None:
        """Send what is held, and close."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """See `asyncio.Transport`."""
        return self._transport.is_closing()


def _head_too_large() -> ServingError:
    message = f"the head of the request has more than {HEAD_BYTES} bytes"
    return ServingError(431, "head_too_large", message)


def _most_connections() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST_CONNECTIONS, limit - min(SPARE_FILES, limit // 2))
