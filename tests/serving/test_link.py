import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trimodal_serving.caller import Caller, acting
from trimodal_serving.channel import Channel
from trimodal_serving.errors import ServingError
from trimodal_serving.link import Link, Piece
from trimodal_serving.messages import error_tree

GONE = ServingError(503, "worker_restarting", "gone", retry_after=3)


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, Channel, list[tuple[str, float]]]]:
    ours, theirs = socket.socketpair()
    measured: list[tuple[str, float]] = []
    link = Link(await Channel.open(ours), lambda *pair: measured.append(pair), lambda: GONE)
    other = await Channel.open(theirs)
    reading = asyncio.create_task(link.run())
    yield link, other, measured
    other.close()
    await reading


async def refusal(task: "asyncio.Task[Any]") -> ServingError:
    with pytest.raises(ServingError) as caught:
        await task
    return caught.value


def test_results_find_their_calls() -> None:
    async def main() -> None:
        async with linked() as (link, other, _):
            costs: list[int] = []
            with acting(Caller("alice", priority="bulk", request_id="r1")):
                first = asyncio.create_task(link.call("embed", {"x": 1}, [b"abc"], costs.append))
            second = asyncio.create_task(link.call("embed", {"x": 2}))
            asked, buffers = await other.receive()
            later, _ = await other.receive()
            assert buffers == [b"abc"]
            whose = {key: asked[key] for key in ("tenant", "priority", "request_id")}
            assert whose == {"tenant": "alice", "priority": "bulk", "request_id": "r1"}
            other.send({"kind": "result", "number": later["number"], "result": later["x"]})
            other.send({"kind": "cost", "number": asked["number"], "tokens": 7})
            error = error_tree(ServingError(400, "invalid_image", "no picture"))
            other.send({"kind": "error", "number": asked["number"], "error": error})
            assert await second == (2, [])
            assert (await refusal(first)).code == "invalid_image"
            assert costs == [7]

    asyncio.run(main())


def test_pieces_come_before_the_result() -> None:
    async def main() -> None:
        async with linked() as (link, other, _):
            gathered: list[Any] = []

            async def gather() -> None:
                async for piece in link.pieces("stream", {}):
                    gathered.append(piece)

            task = asyncio.create_task(gather())
            number = (await other.receive())[0]["number"]
            for text in ("a", "b"):
                other.send({"kind": "piece", "number": number, "piece": text})
            other.send({"kind": "result", "number": number, "result": "ab"}, [b"!"])
            await task
            assert gathered == [Piece("a", []), Piece("b", []), ("ab", [b"!"])]

    asyncio.run(main())


def test_what_is_cancelled_here_is_cancelled_there() -> None:
    async def main() -> None:
        async with linked() as (link, other, _):
            task = asyncio.create_task(link.call("embed", {}))
            number = (await other.receive())[0]["number"]
            task.cancel()
            assert await other.receive() == ({"kind": "cancel", "number": number}, [])
            other.send({"kind": "result", "number": number, "result": 1})  # nobody waits for it

    asyncio.run(main())


def test_the_end_of_the_backend_ends_all_calls() -> None:
    async def main() -> None:
        async with linked() as (link, other, _):
            inside = asyncio.create_task(link.call("embed", {}))
            await other.receive()
            other.close()
            assert await refusal(inside) is GONE
            assert link.ended
            assert link.started.cancelled()
            assert await refusal(asyncio.create_task(link.call("embed", {}))) is GONE

    asyncio.run(main())


def test_beats_tell_how_it_goes() -> None:
    async def main() -> None:
        async with linked() as (link, other, measured):
            before = link.last_beat
            beat = {"kind": "beat", "batch_seconds": 2.5, "failed_batches": 2}
            other.send({**beat, "measured": [["decode_seconds", 1]]})
            other.send({"kind": "ready", "architecture": {}, "generates": ["text"]})
            assert (await link.started)["generates"] == ["text"]
            assert (link.batch_seconds, link.failed_batches) == (2.5, 2)
            assert link.last_beat >= before
            assert measured == [("decode_seconds", 1)]

    asyncio.run(main())
