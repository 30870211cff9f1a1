import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from trimodal_serving.channel import BrokenChannelError, Channel


def exchanging(use: Callable[[Channel, Channel], Awaitable[None]]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        one, other = await Channel.open(ours), await Channel.open(theirs)
        try:
            await use(one, other)
        finally:
            one.close()
            other.close()

    asyncio.run(main())


def test_messages_arrive_whole_and_in_order() -> None:
    large = bytes(range(256)) * 20_000

    async def use(one: Channel, other: Channel) -> None:
        one.send({"text": "七 \ud800", "n": 1.5}, [b"", large])
        one.send({"kind": "beat"})
        drained = asyncio.create_task(one.drain())
        assert await other.receive() == ({"text": "七 \ud800", "n": 1.5}, [b"", large])
        assert await other.receive() == ({"kind": "beat"}, [])
        await drained

    exchanging(use)


def test_the_end_is_seen_even_within_a_message() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        channel = await Channel.open(theirs)
        ours.sendall(struct.pack("!4sIIQ", b"tri1", 100, 0, 0) + b"{")
        ours.close()
        with pytest.raises(EOFError):
            await channel.receive()
        channel.send({})  # nobody is there, and nothing is raised
        await channel.drain()
        channel.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!4sIIQ", b"evil", 2, 0, 0) + b"{}",
        struct.pack("!4sIIQ", b"tri1", 2, 1 << 20, 0),
        struct.pack("!4sIIQ", b"tri1", 2, 0, 1 << 40),
        struct.pack("!4sIIQQ", b"tri1", 2, 1, 5, 6) + b"{}",
        struct.pack("!4sIIQ", b"tri1", 2, 0, 0) + b"{]",
        struct.pack("!4sIIQ", b"tri1", 2, 0, 0) + b"[]",
    ],
)
def test_what_is_no_message_is_refused_before_memory_is_taken(data: bytes) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        channel = await Channel.open(theirs)
        ours.sendall(data)
        with pytest.raises(BrokenChannelError):
            await channel.receive()
        channel.close()
        ours.close()

    asyncio.run(main())
