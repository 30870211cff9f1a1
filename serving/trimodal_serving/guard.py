"""The outermost layer of the server: what every request passes, whatever its route.

app = Guard(app, max_body_bytes=32 * 1024**2)
"""

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from trimodal_serving.errors import ServingError, client_closed, internal

BODY_SECONDS = 30.0
LINGER_SECONDS = 5.0
BODIES_IN_FLIGHT = 32
"""Largest bodies that may be in memory at once; smaller ones may be more."""

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI layer that reads bodies under limits, numbers requests and survives failures.

    A body is counted as it arrives, whatever its headers claim, and must be complete in time.
    """

    def __init__(self, app: App, max_body_bytes: int, body_seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds
        self._bytes_in_flight = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI protocol."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        answer = _Answer(send, _request_id(headers))
        body = bytearray()
        try:
            await self._read(headers, receive, body)
            inner = {**scope, "request_id": answer.request_id}
            await self._app(inner, _replayed(bytes(body), receive), answer.forward)
        except ServingError as error:
            await answer.refuse(error, receive)
        except Exception:
            logger.exception("request %s failed", answer.request_id)
            await answer.refuse(internal(), receive)
        finally:
            self._bytes_in_flight -= len(body)

    async def _read(self, headers: dict[str, str], receive: Receive, body: bytearray) -> None:
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise ServingError(
                415, "unsupported_content_encoding", "the body must not be compressed"
            )
        declared = headers.get("content-length", "0")
        if not re.fullmatch(r"[0-9]{1,20}", declared):
            raise ServingError(400, "bad_http", "the content-length is not a number of bytes")
        if int(declared) > self._max_body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise client_closed()
                    chunk = message.get("body", b"")
                    self._count(len(body) + len(chunk), len(chunk))
                    body += chunk
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            raise ServingError(
                408, "body_timeout", f"the body did not arrive within {self._body_seconds:g} s"
            ) from None

    def _count(self, size: int, added: int) -> None:
        if size > self._max_body_bytes:
            raise self._too_large()
        if self._bytes_in_flight + added > BODIES_IN_FLIGHT * self._max_body_bytes:
            raise ServingError(
                503, "overloaded", "the server is receiving too much at once", retry_after=1
            )
        self._bytes_in_flight += added

    def _too_large(self) -> ServingError:
        limit = self._max_body_bytes / 1024**2
        return ServingError(413, "body_too_large", f"the body has more than {limit:g} MiB")


class _Answer:
    """Sends one answer: the app's with the request's id, or a refusal."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.request_id = request_id
        self._send = send
        self._started = False

    async def forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            tag = (b"x-request-id", self.request_id.encode())
            message = {**message, "headers": [*message.get("headers", []), tag]}
        await self._send(message)

    async def refuse(self, error: ServingError, receive: Receive) -> None:
        """Answer at once, then read on for a moment.

        A connection that is closed while the client still sends is reset, and the client would
        never see the answer.
        """
        if self._started:
            return
        body = json.dumps(error.envelope()).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **error.headers(),
        }
        raw = [(key.encode(), value.encode()) for key, value in headers.items()]
        await self.forward({"type": "http.response.start", "status": error.status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _request_id(headers: dict[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if re.fullmatch(r"[A-Za-z0-9._\-]{1,64}", given) else uuid.uuid4().hex


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body in one piece; after it only a disconnect can come."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay
