"""Bytes by address: local files, parts of shards, and whatever fsspec reaches.

content = read_bytes("s3://corpus/index.jsonl")
picture = ShardFile("data/shards/shard-00000.tar", offset=1536, size=4021, sha256="9f86...").read()
"""

import functools
import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from trimodal.errors import DataError, StorageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

OPEN_FILES = 64
"""Of shards, in each process."""


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file within a shard; two that hold the same bytes are equal."""

    shard: str = field(compare=False)
    """The address of the shard."""
    offset: int = field(compare=False)
    size: int
    """In bytes, as the offset."""
    sha256: str

    @property
    def name(self) -> str:
        """What tells it from others, as the name of a path does."""
        return self.sha256

    def read(self) -> bytes:
        """The bytes, which are what was imported.

        Raises:
            DataError: they are not, or cannot be read; the message names shard and offset.
        """
        try:
            content = read_range(self.shard, self.offset, self.size)
        except StorageError as error:
            raise DataError(str(error)) from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataError(f"{self} are not what was imported")
        return content

    def __str__(self) -> str:
        return f"{self.shard}: bytes {self.offset} to {self.offset + self.size}"


Source = Path | ShardFile
"""Where the media of a row lie."""


def resolved(source: Source) -> Source:
    """One name for a file, whatever links lead to it."""
    return source.resolve() if isinstance(source, Path) else source


def is_remote(address: str | Path) -> bool:
    """Whether an address is fsspec's, such as `s3://bucket/name`."""
    return "://" in str(address)


def beside(address: str, name: str) -> str:
    """What a relative name in the file at `address` stands for."""
    if is_remote(address):
        return f"{address.rpartition('/')[0]}/{name}"
    return str(Path(address).parent / name)


def open_binary(address: str | Path) -> BinaryIO:
    """A file to be read from its start.

    Raises:
        StorageError: it cannot be opened.
    """
    try:
        if not is_remote(address):
            return open(address, "rb")
        system, path = _remote(str(address))
        # fsspec's own files cannot read a line of at most so many bytes
        return io.BufferedReader(cast(io.RawIOBase, system.open(path, "rb")))
    except (OSError, ValueError) as error:
        raise _unreadable(address, error) from error


def read_bytes(address: str | Path) -> bytes:
    """A whole file.

    Raises:
        StorageError: it cannot be read.
    """
    with open_binary(address) as file:
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(address, error) from error


def read_range(address: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`, fewer where the file ends.

    Raises:
        StorageError: they cannot be read.
    """
    try:
        if not is_remote(address):
            opened = _opened(address)  # held, for another thread may open one file too many
            return os.pread(opened.descriptor, size, offset)
        system, path = _remote(address)
        return cast(bytes, system.cat_file(path, start=offset, end=offset + size))
    except (OSError, ValueError) as error:
        raise _unreadable(address, error) from error


def size_of(address: str) -> int:
    """Bytes of a file.

    Raises:
        StorageError: there is none.
    """
    try:
        if not is_remote(address):
            return Path(address).stat().st_size
        system, path = _remote(address)
        return int(system.size(path) or 0)
    except (OSError, ValueError) as error:
        raise _unreadable(address, error) from error


class _Opened:
    """A descriptor that is closed with the last use of it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@functools.lru_cache(maxsize=OPEN_FILES)
def _opened(path: str) -> _Opened:
    return _Opened(path)


def _remote(address: str) -> tuple["AbstractFileSystem", str]:
    from fsspec.core import url_to_fs  # most runs have no use for it

    try:
        system, path = url_to_fs(address)
    except ImportError as error:
        raise StorageError(f"{address} cannot be read: {error}") from error
    return system, path


def _unreadable(address: str | Path, error: Exception) -> StorageError:
    cause = getattr(error, "strerror", None) or error
    return StorageError(f"{address} cannot be read: {cause}")
