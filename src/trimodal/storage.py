"""Bytes by address: local files, parts of shards, and whatever fsspec reaches.

content = read_bytes("s3://corpus/index.jsonl")
write_whole("s3://corpus/results.json", b"{}")
picture = ShardFile("data/shards/shard-00000.tar", offset=1536, size=4021, sha256="9f86...").read()
"""

import errno
import functools
import hashlib
import io
import json
import os
import posixpath
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from trimodal.errors import DataError, PathError, StorageError, TrimodalError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

OPEN_FILES = 64
"""Of shards, in each process."""
PAUSES = (1.0, 4.0, 16.0)
"""Seconds before what could not be read is asked for again."""
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What says that there is no such file, rather than that it cannot be read now."""
_IN_THE_WAY = (*MISSING, FileExistsError)
T = TypeVar("T")


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
            DataError: they are not, or there is no such shard; the message names shard and offset.
            StorageError: the shard cannot be read now.
        """
        read = functools.partial(read_range, self.shard, self.offset, self.size)
        content = _read_medium(read)
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


def are_same(first: str | Path, second: str | Path) -> bool:
    """Whether two addresses lead to one file; those of fsspec if they are written alike."""
    if is_remote(first) or is_remote(second):
        return str(first).rstrip("/") == str(second).rstrip("/")
    return Path(first).resolve() == Path(second).resolve()


def beside(address: str, name: str) -> str:
    """What a relative name in the file at `address` stands for."""
    if is_remote(address):
        system, _, path = address.partition("://")
        return f"{system}://{posixpath.normpath(posixpath.join(posixpath.dirname(path), name))}"
    return str(Path(address).parent / name)


def under(folder: str | Path, *names: str) -> str:
    """The address of a file in a folder."""
    return "/".join((str(folder).rstrip("/"), *names))


def parent_of(address: str | Path) -> str:
    """The folder that a file is in."""
    return str(address).rpartition("/")[0] if is_remote(address) else str(Path(address).parent)


def read_source(source: Source) -> bytes:
    """The bytes of a medium.

    Raises:
        DataError: there is no such file, or it is not what was imported.
        StorageError: it cannot be read now.
    """
    if isinstance(source, ShardFile):
        return source.read()
    return _read_medium(functools.partial(read_bytes, source))


def _read_medium(read: Callable[[], bytes]) -> bytes:
    with _missing_is_data():
        return patiently(read)


@contextmanager
def _missing_is_data() -> Iterator[None]:
    """What is gone is a fault of the data; what a disk or a server refuses for now is not."""
    try:
        yield
    except StorageError as error:
        if is_missing(error):
            raise DataError(str(error)) from error
        raise


def patiently(read: Callable[[], T]) -> T:
    """What `read` returns, asked again after pauses where a disk or a server may have failed it.

    Raises:
        StorageError: it failed every time, or another try would change nothing.
    """
    for pause in PAUSES:
        try:
            return read()
        except StorageError as error:
            if is_missing(error) or isinstance(error.__cause__, ValueError | ImportError):
                raise
        _opened.cache_clear()  # a descriptor that is kept may be what fails
        time.sleep(pause)
    return read()


def is_missing(error: StorageError) -> bool:
    """Whether there is no such file, or it ends before what was asked for."""
    cause = error.__cause__
    if isinstance(cause, MISSING):
        return True
    # what s3fs makes of a range behind the end
    return isinstance(cause, OSError) and cause.errno == errno.EINVAL


def refusal(message: str, cause: Exception) -> StorageError:
    """What to say of a path that was named and cannot be used: who mends it depends on `cause`."""
    return (PathError if isinstance(cause, _IN_THE_WAY) else StorageError)(message)


@contextmanager
def naming(address: str | Path, deed: str) -> Iterator[None]:
    """One sentence for whatever keeps a file from being `deed`, such as read or written.

    Raises:
        StorageError: that sentence.
    """
    try:
        yield
    except TrimodalError:
        raise
    except (OSError, ValueError) as error:
        raise _unusable(address, deed, error) from error
    except Exception as error:  # a file system's own, such as that it has no credentials
        if not is_remote(address):
            raise
        raise _unusable(address, deed, error) from error


def open_binary(address: str | Path) -> BinaryIO:
    """A file to be read from its start.

    Raises:
        StorageError: it cannot be opened.
    """
    with naming(address, "read"):
        if not is_remote(address):
            return open(address, "rb")
        system, path = _remote(address)
        # fsspec's own files cannot read a line of at most so many bytes
        return io.BufferedReader(cast(io.RawIOBase, system.open(path, "rb")))


def read_bytes(address: str | Path) -> bytes:
    """A whole file.

    Raises:
        StorageError: it cannot be read.
    """
    with open_binary(address) as file, naming(address, "read"):
        return file.read()


def read_data(address: str | Path) -> bytes:
    """A whole file of a corpus, such as a manifest.

    Raises:
        DataError: there is no such file.
        StorageError: it cannot be read now.
    """
    with _missing_is_data():
        return read_bytes(address)


def read_range(address: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`, fewer where the file ends.

    Raises:
        StorageError: they cannot be read.
    """
    if not is_remote(address):
        try:
            opened = _opened(address)  # held, for another thread may open one file too many
            return os.pread(opened.descriptor, size, offset)
        except (OSError, ValueError) as error:
            raise _unusable(address, "read", error) from error
    with naming(address, "read"):
        system, path = _remote(address)
        return cast(bytes, system.cat_file(path, start=offset, end=offset + size))


def size_of(address: str | Path) -> int:
    """Bytes of a file.

    Raises:
        StorageError: there is none.
    """
    with naming(address, "read"):
        if not is_remote(address):
            return Path(address).stat().st_size
        system, path = _remote(address)
        return int(system.size(path) or 0)


def is_file(address: str | Path) -> bool:
    """Whether there is such a file.

    Raises:
        StorageError: it cannot be told.
    """
    if not is_remote(address):
        return Path(address).is_file()
    with naming(address, "read"):
        system, path = _remote(address)
        system.invalidate_cache()  # another machine may have written it
        return bool(system.isfile(path))


def names_in(folder: str | Path) -> list[str]:
    """The names of what lies in a folder, sorted.

    Raises:
        StorageError: it cannot be read.
    """
    with naming(folder, "read"):
        if not is_remote(folder):
            return sorted(os.listdir(folder))
        system, path = _remote(folder)
        system.invalidate_cache()
        names = [posixpath.basename(name.rstrip("/")) for name in system.ls(path, detail=False)]
        system.invalidate_cache()  # else what is changed from now on is read by what it was
        return sorted(names)


def is_used(folder: str | Path, besides: str = "") -> bool:
    """Whether there is anything in a folder, or a file in its place.

    Args:
        folder: of this machine, or an address of fsspec.
        besides: a name in a folder of this machine that does not count.

    Raises:
        StorageError: it cannot be told.
    """
    with naming(folder, "read"):
        if not is_remote(folder):
            place = Path(folder)
            if not place.is_dir():
                return place.exists()
            return any(path.name != besides for path in place.iterdir())
        system, path = _remote(folder)
        system.invalidate_cache()
        return bool(system.exists(path))


def make_folder(folder: str | Path) -> None:
    """Make a folder where there is none; a bucket needs none.

    Raises:
        StorageError: it cannot be made.
    """
    if not is_remote(folder):
        with naming(folder, "written"):
            Path(folder).mkdir(parents=True, exist_ok=True)


def remove_tree(folder: str | Path) -> None:
    """Delete a folder and all that it holds.

    Raises:
        StorageError: it cannot be deleted.
    """
    with naming(folder, "written"):
        if not is_remote(folder):
            shutil.rmtree(folder)
            return
        system, path = _remote(folder)
        system.rm(path, recursive=True)


def check_writable(address: str | Path) -> None:
    """Refuse a place that cannot be written, before the work that would be lost.

    Raises:
        PathError: the folder does not exist, or there is a folder in its place.
        StorageError: the folder takes no files; of an address of fsspec, there is no such file
            system.
    """
    if is_remote(address):
        _remote(address)
        return
    path = Path(address)
    if not path.parent.is_dir():
        raise PathError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.is_dir():
        raise PathError(f"{path} cannot be written: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise StorageError(f"{path} cannot be written: no permission in {path.parent}")


@contextmanager
def replacing(
    address: str | Path, scratch: str | Path | None = None
) -> Iterator[io.BufferedRandom]:
    """A file that is put where `address` is once it is whole, so that no reader sees half of it.

    Args:
        address: of the file.
        scratch: a folder for what is not whole yet, on the same disk; else that of the file, or
            for an address of fsspec the machine's.

    Raises:
        StorageError: it cannot be written.
    """
    check_writable(address)
    remote = is_remote(address)
    if scratch is None or is_remote(scratch):
        scratch = None if remote else Path(address).parent
    name = None
    try:
        with naming(address, "written"):
            handle, name = tempfile.mkstemp(dir=scratch, prefix=f".{Path(address).name}.")
        with os.fdopen(handle, "w+b") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise _unusable(address, "written", error) from error
        with naming(address, "written"):
            _put(name, address)
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def _put(name: str, address: str | Path) -> None:
    """Move a whole temporary file to its place."""
    if is_remote(address):
        system, path = _remote(address)
        system.put_file(name, path)
        return
    mask = os.umask(0)
    os.umask(mask)
    Path(name).chmod(0o666 & ~mask)  # a temporary file is born private
    os.replace(name, address)
    sync(parent_of(address))


def sync(path: str | Path) -> None:
    """Have a file's content, or a folder's names, on the disk before anything that follows.

    Raises:
        OSError: they cannot be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(address: str | Path, content: bytes) -> None:
    """Put `content` where `address` is, in one step.

    Raises:
        StorageError: it cannot be written.
    """
    with replacing(address) as file:
        file.write(content)


def write_json(address: str | Path, tree: Any) -> None:
    """Write JSON that any parser reads: no NaN, no infinity.

    Raises:
        StorageError: it cannot be written.
    """
    text = json.dumps(tree, ensure_ascii=False, indent=2, allow_nan=False)
    # a path may hold bytes that are no text; JSON spells them as backslashreplace does
    write_whole(address, f"{text}\n".encode(errors="backslashreplace"))


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


def _remote(address: str | Path) -> tuple["AbstractFileSystem", str]:
    from fsspec.core import url_to_fs  # most runs have no use for it

    with naming(address, "read"):
        system, path = url_to_fs(str(address))
    return system, path


def _unusable(address: str | Path, deed: str, error: Exception) -> StorageError:
    return StorageError(f"{address} cannot be {deed}: {getattr(error, 'strerror', None) or error}")
