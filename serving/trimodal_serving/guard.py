"""The outermost layer of the server: what every request passes, whatever its route.

app = Guard(app, max_body_bytes=32 * 1024**2)
"""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from trimodal_serving.access import Access, generates
from trimodal_serving.bodies import Bodies
from trimodal_serving.caller import Caller, acting
from trimodal_serving.errors import LATE, CutError, ServingError, client_closed, internal
from trimodal_serving.ledger import Ledger, Visit, route_of

BODY_SECONDS = 30.0
LINGER_SECONDS = 5.0
SKIPPED_BYTES = 1 << 16
"""Of a body that nobody reads, for which a connection is kept."""
OPENAI = "/v1/"
"""What paths of OpenAI's begin with, and those of ours that stand beside them."""
BODIES_IN_FLIGHT = 32
"""Largest bodies that may be in memory at once; smaller ones may be more."""

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI layer that lets in, reads bodies under limits, numbers requests, survives failures.

    Whether a request is let in is decided on its head, before any of its body is read. A body is
    counted as it arrives, whatever its headers claim, and must be complete in time.
    """

    def __init__(
        self,
        app: App,
        max_body_bytes: int,
        body_seconds: float = BODY_SECONDS,
        access: Access | None = None,
        ledger: Ledger | None = None,
        door: Callable[[], None] | None = None,
        is_route: Callable[[Message], bool] = lambda _: True,
    ) -> None:
        """Stand before an app.

        Args:
            app: what answers.
            max_body_bytes: of a request.
            body_seconds: in which its body must arrive.
            access: who may do what; None lets everybody do everything.
            ledger: where requests are written down.
            door: refuses what would be computed while there is no room, before it is read.
            is_route: whether the app has anything for the path of an ASGI scope.
        """
        self.app = app
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds
        self._access = access or Access()
        self._ledger = ledger
        self._door = door
        self._is_route = is_route
        self._bodies = Bodies(BODIES_IN_FLIGHT * max_body_bytes)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI protocol."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        path = scope.get("path", "")
        visit = Visit(_request_id(headers), route_of(path))
        answer = _Answer(send, visit)
        # while nobody has begun to read the body
        keeps = scope.get("http_version", "1.1") == "1.1" and _is_small(headers)
        try:
            visit.caller = caller = self._access.enter(
                path, scope["headers"], lambda: self._is_route(scope)
            )
            caller.request_id, caller.generates = visit.request_id, generates(path)
            with acting(caller):
                if self._door is not None and scope["method"] == "POST":
                    self._door()
                keeps = False
                # words of the client's, which telemetry would pass on
                told = [one for one in scope["headers"] if one[0] != b"tracestate"]
                inner = {**scope, "headers": told}
                inner |= {"request_id": visit.request_id, "visit": visit}
                await self._serve(inner, headers, receive, answer, caller)
        except ServingError as error:
            await answer.refuse(error, receive, keeps=keeps)
        except CutError:
            pass  # the connection is closed without the end of the answer, which tells the client
        except Exception:
            logger.exception("request %s failed", visit.request_id)
            await answer.refuse(internal(), receive)
        finally:
            visit.seconds = time.monotonic() - visit.began
            if visit.reason is None and not answer.complete:
                visit.reason = client_closed().code  # in the middle of its answer
            self._leave(visit)

    def turned_away(self, reason: str) -> None:
        """Write down a connection that was refused before it had a request."""
        if self._ledger is not None:
            self._ledger.turned_away(reason)

    def _leave(self, visit: Visit) -> None:
        caller = visit.caller
        if caller is not None:
            if visit.reason in (client_closed().code, LATE) and not caller.usage.tokens:
                caller.usage.tokens = caller.cost  # it was computed, though nobody waited for it
            self._access.leave(caller)
        if self._ledger is not None:
            self._ledger.answered(visit)

    async def _serve(
        self,
        scope: Message,
        headers: dict[str, str],
        receive: Receive,
        answer: "_Answer",
        caller: Caller,
    ) -> None:
        body = bytearray()
        fetched = 0
        start = time.monotonic()

        def hold(size: int) -> None:
            nonlocal fetched
            if len(body) + fetched + size > self._max_body_bytes:
                raise self._too_large("the body with what is fetched for it")
            self._bodies.take(caller.tenant, size, alone=caller.key_id is None)
            fetched += size

        caller.on_bytes = hold
        try:
            await self._read(headers, receive, body, caller)
            await self.app(scope, _replayed(bytes(body), receive), answer.forward)
        finally:
            self._bodies.give(caller.tenant, len(body) + fetched, time.monotonic() - start)

    async def _read(
        self, headers: dict[str, str], receive: Receive, body: bytearray, caller: Caller
    ) -> None:
        plain = headers.get("content-encoding", "identity").lower() == "identity"
        if not plain or headers.get("transfer-encoding", "chunked").lower() != "chunked":
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
                    if len(body) + len(chunk) > self._max_body_bytes:
                        raise self._too_large()
                    self._bodies.take(caller.tenant, len(chunk), alone=caller.key_id is None)
                    body += chunk
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            raise ServingError(
                408, "body_timeout", f"the body did not arrive within {self._body_seconds:g} s"
            ) from None

    def _too_large(self, what: str = "the body") -> ServingError:
        limit = self._max_body_bytes / 1024**2
        return ServingError(413, "body_too_large", f"{what} has more than {limit:g} MiB")


class _Answer:
    """Sends one answer: the app's with the request's id, or a refusal."""

    def __init__(self, send: Send, visit: Visit) -> None:
        self._visit = visit
        self._send = send
        self._started = False
        self.complete = False
        """Whether all of it was sent, as far as is known here."""

    async def forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self._visit.status = message["status"]
            tags = [(key.encode(), value.encode()) for key, value in self._tags().items()]
            message = {**message, "headers": [*message.get("headers", []), *tags]}
        await self._send(message)
        ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        self.complete = self.complete or ended

    def _tags(self) -> dict[str, str]:
        """What every answer says besides, in the words of OpenAI."""
        tags = {"x-request-id": self._visit.request_id}
        if self._visit.route.startswith(OPENAI):
            seconds = time.monotonic() - self._visit.began
            tags["openai-processing-ms"] = str(round(1000 * seconds))
        caller = self._visit.caller
        if caller is not None and caller.quota is not None:
            tags |= caller.quota.rates(caller.usage)
        return tags

    async def refuse(self, error: ServingError, receive: Receive, *, keeps: bool = False) -> None:
        """Answer at once, then read on for a moment unless the connection is kept.

        A connection that is closed while the client still sends is reset, and the client would
        never see the answer. One that is kept passes over the little that is still to come; a full
        server has no time for the new connection of each client that it refuses.
        """
        self._visit.reason = error.code
        if self._started:
            return
        body = json.dumps(error.envelope()).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **({} if keeps else {"connection": "close"}),
            **error.headers(),
        }
        raw = [(key.encode(), value.encode()) for key, value in headers.items()]
        await self.forward({"type": "http.response.start", "status": error.status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body, "more_body": not keeps})
        if keeps:
            return
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _is_small(headers: dict[str, str]) -> bool:
    """Whether the body is declared as a short one, behind which the connection can go on."""
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or "expect" in headers:
        return False
    if "close" in headers.get("connection", "").lower():
        return False
    return re.fullmatch("[0-9]{1,5}", length) is not None and int(length) <= SKIPPED_BYTES


def _request_id(headers: dict[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if re.fullmatch(r"[A-Za-z0-9._\-]{1,64}", given) else uuid.uuid4().hex


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body in one piece; after it only a disconnect can come."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay
