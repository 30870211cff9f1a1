"""Answers without a web library: bytes at once, or bytes or events as they come.

return Reply(json_bytes(tree)); return await streamed(events)
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trimodal.batch import Modality
from trimodal_serving.errors import internal
from trimodal_serving.vectors import LABELS

if TYPE_CHECKING:
    from trimodal_serving.service import Service

HEAD_SECONDS = 5.0
"""Without a first event, after which the head of a stream is sent nevertheless; whatever fails
later has no status of its own any more."""
PING_SECONDS = 15.0
"""Of silence in a stream, after which a comment keeps the connection open."""

EVENTS = "text/event-stream"
Events = AsyncIterator[dict[str, Any]]


@dataclass(frozen=True)
class Reply:
    """An answer that is no error."""

    body: bytes | AsyncIterator[bytes]
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


Answer = Callable[["Service", str, str, bytes], Coroutine[Any, Any, Reply]]
"""From the engine, the name of the model, the content type and the body of a request."""


def rendered(tree: Any, status: int = 200) -> Reply:
    """JSON in UTF-8."""
    try:
        data = json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a character, which JSON can only escape
        data = json.dumps(tree).encode()
    return Reply(data, status=status)


async def streamed(events: Events) -> Reply:
    """Server-sent events, once the first is there, or has not come for a while.

    Raises:
        ServingError: what went wrong until then; what does later is raised by the body.
    """
    first = asyncio.ensure_future(anext(events))
    try:
        await asyncio.wait({first}, timeout=HEAD_SECONDS)
    except asyncio.CancelledError:
        first.cancel()
        await asyncio.wait({first})
        raise
    if first.done():
        _first(first)
    return Reply(_sent(first, events), EVENTS)


async def poured(pieces: AsyncIterator[bytes], media_type: str) -> Reply:
    """A file in pieces, once the first is there.

    Raises:
        ServingError: what went wrong before it; what does later is raised by the body, and no word
            of it can be said to the client.
    """
    try:
        first = await anext(pieces)
    except StopAsyncIteration:
        raise internal() from None
    return Reply(_joined(first, pieces), media_type)


async def _joined(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece


def _first(done: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
    try:
        return done.result()
    except StopAsyncIteration:
        raise internal() from None


async def _sent(first: asyncio.Future[dict[str, Any]], events: Events) -> AsyncIterator[bytes]:
    pending: asyncio.Future[dict[str, Any]] | None = first
    try:
        while not first.done():
            yield b": ping\n\n"
            await asyncio.wait({first}, timeout=PING_SECONDS)
        pending = None
        yield event(_first(first))
        while True:
            pending = pending or asyncio.ensure_future(anext(events))
            await asyncio.wait({pending}, timeout=PING_SECONDS)
            if not pending.done():
                yield b": ping\n\n"
                continue
            try:
                tree = pending.result()
            except StopAsyncIteration:
                yield b"data: [DONE]\n\n"
                return
            pending = None
            yield event(tree)
    finally:
        if pending is not None:
            pending.cancel()


def event(tree: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(tree, ensure_ascii=False).encode() + b"\n\n"


def details(tokens: Mapping[Modality, int]) -> dict[str, int]:
    """Tokens by modality, as in the usage of embeddings."""
    return {f"{LABELS[modality]}_tokens": tokens.get(modality, 0) for modality in Modality}
