import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from trimodal.batch import Modality
from trimodal_serving import replies as module
from trimodal_serving.errors import ServingError
from trimodal_serving.replies import details, poured, rendered, streamed


async def events(*items: dict[str, Any] | bytes | Exception, wait: float = 0) -> AsyncIterator[Any]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item
        await asyncio.sleep(wait)


async def collected(*items: dict[str, Any] | Exception, wait: float = 0) -> list[bytes]:
    reply = await streamed(events(*items, wait=wait))
    assert reply.media_type == "text/event-stream"
    assert not isinstance(reply.body, bytes)
    return [chunk async for chunk in reply.body]


def test_events_end_with_done() -> None:
    sent = asyncio.run(collected({"a": "红\n"}, {"b": 2}))
    assert sent == ['data: {"a": "红\\n"}\n\n'.encode(), b'data: {"b": 2}\n\n', b"data: [DONE]\n\n"]


def test_an_error_before_the_first_event_is_raised_at_once() -> None:
    with pytest.raises(ServingError, match="full"):
        asyncio.run(collected(ServingError(429, "queue_full", "full")))
    with pytest.raises(ServingError, match="failed"):
        asyncio.run(collected())


def test_an_error_after_it_is_raised_by_the_body() -> None:
    with pytest.raises(ServingError, match="late"):
        asyncio.run(collected({"a": 1}, ServingError(500, "internal", "late")))


async def gathered(*pieces: bytes | Exception) -> list[bytes]:
    reply = await poured(events(*pieces), "audio/wav")
    assert reply.media_type == "audio/wav"
    assert not isinstance(reply.body, bytes)
    return [chunk async for chunk in reply.body]


def test_a_file_comes_in_its_pieces_alone() -> None:
    assert asyncio.run(gathered(b"a", b"b")) == [b"a", b"b"]
    with pytest.raises(ServingError, match="full"):
        asyncio.run(gathered(ServingError(429, "queue_full", "full")))
    with pytest.raises(ServingError, match="late"):
        asyncio.run(gathered(b"a", ServingError(500, "internal", "late")))


def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_SECONDS", 0.001)
    sent = asyncio.run(collected({"a": 1}, {"b": 2}, wait=0.05))
    assert b": ping\n\n" in sent
    assert [chunk for chunk in sent if chunk.startswith(b"data")][1] == b'data: {"b": 2}\n\n'


class Slow:
    """Events of which the first waits until it is let go, and what became of them."""

    def __init__(self, *items: dict[str, Any] | Exception) -> None:
        self._items = items
        self.go = asyncio.Event()
        self.ended = False

    async def events(self) -> AsyncIterator[Any]:
        try:
            await self.go.wait()
            async for item in events(*self._items):
                yield item
        finally:
            self.ended = True


async def after_a_ping(*items: dict[str, Any] | Exception) -> list[bytes]:
    """What is sent once the head and a comment are, before there is any event."""
    slow = Slow(*items)
    reply = await streamed(slow.events())
    assert reply.status == 200
    assert not isinstance(reply.body, bytes)
    assert await anext(reply.body) == b": ping\n\n"
    slow.go.set()
    return [chunk async for chunk in reply.body if chunk != b": ping\n\n"]


def test_the_head_does_not_wait_for_a_slow_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.001)
    sent = asyncio.run(after_a_ping({"a": 1}, {"b": 2}))
    assert sent == [b'data: {"a": 1}\n\n', b'data: {"b": 2}\n\n', b"data: [DONE]\n\n"]
    with pytest.raises(ServingError, match="late"):
        asyncio.run(after_a_ping(ServingError(503, "worker_restarting", "late")))
    with pytest.raises(ServingError, match="failed"):
        asyncio.run(after_a_ping())


def test_comments_go_on_until_the_first_event(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_SECONDS", "PING_SECONDS"):
        monkeypatch.setattr(module, name, 0.001)

    async def main() -> None:
        reply = await streamed(Slow({"a": 1}).events())
        assert not isinstance(reply.body, bytes)
        for _ in range(3):
            assert await anext(reply.body) == b": ping\n\n"

    asyncio.run(main())


@pytest.mark.parametrize("is_late", [False, True])
def test_who_leaves_before_the_first_event_ends_it(
    monkeypatch: pytest.MonkeyPatch, *, is_late: bool
) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.001 if is_late else 60)

    async def main() -> None:
        slow = Slow({"a": 1})
        begun = asyncio.Event()

        async def read() -> None:
            reply = await streamed(slow.events())
            assert not isinstance(reply.body, bytes)
            async for _ in reply.body:
                begun.set()

        task = asyncio.create_task(read())
        await (begun.wait() if is_late else asyncio.sleep(0.01))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert slow.ended

    asyncio.run(main())


def test_json_keeps_its_characters() -> None:
    reply = rendered({"text": "红\x00"})
    assert reply.body == '{"text": "红\\u0000"}'.encode()
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body) == {"text": "红\x00"}


def test_details_name_every_modality() -> None:
    assert details({Modality.TEXT: 3}) == {"image_tokens": 0, "text_tokens": 3, "audio_tokens": 0}


def test_half_a_character_is_escaped() -> None:
    reply = rendered({"payload": "\ud83d", "other": "红"})
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body) == {"payload": "\ud83d", "other": "红"}
