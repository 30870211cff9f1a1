"""Messages between two processes: a JSON object and raw buffers, each behind its length.

channel = await Channel.open(sock); channel.send({"kind": "beat"})
tree, buffers = await channel.receive()
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

import orjson

MAX_BUFFERS = 1 << 16
MAX_BYTES = 1 << 30
"""Of one message."""

_HEAD = struct.Struct("!4sIIQ")
_MARK = b"tri1"

Buffer = bytes | memoryview
Tree = dict[str, Any]


class BrokenChannelError(Exception):
    """What arrived is no message of this protocol, or was cut."""


class Channel:
    """One end of a connected stream socket; belongs to one event loop.

    A message is 20 bytes that hold a mark, the length of the JSON, the number of buffers and their
    total, then the lengths of the buffers, the JSON and the buffers. Nothing in it is executable.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> "Channel":
        """Take over a connected socket."""
        return cls(*await asyncio.open_connection(sock=sock, limit=1 << 20))

    def send(self, tree: Tree, buffers: Sequence[Buffer] = ()) -> None:
        """Send a message as a whole; does not wait, see `drain`."""
        text = _written(tree)
        sizes = [len(buffer) for buffer in buffers]
        head = _HEAD.pack(_MARK, len(text), len(sizes), sum(sizes))
        if not self._writer.is_closing():
            self._writer.writelines([head, struct.pack(f"!{len(sizes)}Q", *sizes), text, *buffers])

    async def drain(self) -> None:
        """Wait until the other side has taken most of what was sent."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def receive(self) -> tuple[Tree, list[bytes]]:
        """The next message.

        Raises:
            EOFError: the other side is gone, whether it closed or was killed.
            BrokenChannelError: what arrived is no message.
        """
        try:
            head = await self._reader.readexactly(_HEAD.size)
            mark, length, count, total = _HEAD.unpack(head)
            if mark != _MARK or count > MAX_BUFFERS or length + total > MAX_BYTES:
                raise BrokenChannelError
            sizes = struct.unpack(f"!{count}Q", await self._reader.readexactly(8 * count))
            if sum(sizes) != total:
                raise BrokenChannelError
            tree = _read(await self._reader.readexactly(length))
            buffers = [await self._reader.readexactly(size) for size in sizes]
        except (asyncio.IncompleteReadError, ConnectionError):
            raise EOFError from None
        except ValueError:
            raise BrokenChannelError from None
        if not isinstance(tree, dict):
            raise BrokenChannelError
        return tree, buffers

    def close(self) -> None:
        """Close the socket; the other side sees the end."""
        self._writer.close()


# half of a character, which a client may send, only Python's own JSON can write and read
def _written(tree: Tree) -> bytes:
    try:
        return orjson.dumps(tree)
    except TypeError:
        return json.dumps(tree).encode()


def _read(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)
