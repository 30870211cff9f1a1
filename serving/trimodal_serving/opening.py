"""A process that opens files of strangers: it may crash, hang or grow, and nothing else does.

python -m trimodal_serving.opening SOCKET

What arrives are a tree of JSON and the bytes of a file, what leaves are a tree and an array, see
`Pipe`. The process has neither torch nor the model, and ends when nobody can ask it any more.
"""

import json
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from trimodal.errors import DataError
from trimodal.media import picture, recording

MOST_MEMORY = 1 << 30
"""Bytes that opening files may add to the address space."""
MOST_SECONDS = 10
"""Of computing for one file."""
MOST_FILES = 16

_HEAD = struct.Struct("!IQ")


class Pipe:
    """One end of a socket over which trees and bytes go, each behind its length; blocks."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, tree: Mapping[str, Any], data: bytes | memoryview = b"") -> None:
        """Send both.

        Raises:
            OSError: the other side is gone, or takes too long.
        """
        text = json.dumps(tree).encode()
        self._sock.sendall(_HEAD.pack(len(text), len(data)) + text)
        self._sock.sendall(data)

    def receive(self) -> tuple[dict[str, Any], bytearray]:
        """The next tree and bytes.

        Raises:
            OSError: the other side takes too long.
            EOFError: it is gone.
        """
        text, data = _HEAD.unpack(self._exactly(_HEAD.size))
        return json.loads(self._exactly(text)), self._exactly(data)

    def _exactly(self, size: int) -> bytearray:
        buffer = bytearray(size)
        rest = memoryview(buffer)
        while rest:
            count = self._sock.recv_into(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return buffer


def main(sock: socket.socket) -> None:
    """Open what arrives until the other side is gone, or memory has run out."""
    pipe = Pipe(sock)
    _bound()
    while True:
        try:
            tree, data = pipe.receive()
        except EOFError:
            return
        _allow(MOST_SECONDS)
        try:
            said, array = _opened(tree, bytes(data))
        except DataError as error:
            pipe.send({"code": error.code, "message": str(error)})
        except MemoryError:
            pipe.send({"code": "memory"})
            return  # what is left of it is in pieces
        else:
            pipe.send(said, array.tobytes())


def _opened(tree: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], np.ndarray]:
    """A picture (H, W, 3) uint8, or samples (S,) or (S, channels) float32 and their rate."""
    if "max_pixels" in tree:
        array, said = picture.read(data, tree["max_pixels"]), {}
    else:
        array, rate = recording.read(data, tree["max_seconds"])
        said = {"rate": rate}
    return {**said, "shape": array.shape}, np.ascontiguousarray(array)


def _bound() -> None:
    """Take away what opening a file does not need."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MOST_MEMORY
    for kind, limit in (
        (resource.RLIMIT_AS, most),
        (resource.RLIMIT_NOFILE, MOST_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def _allow(seconds: int) -> None:
    """Be ended by the kernel when so much has been computed from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + seconds, hard))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
