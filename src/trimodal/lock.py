"""A lock on a file or a folder, so that two processes do not write the same.

with Lock(Path("shards/train"), "shards/train"): ...
"""

import fcntl
import os
from pathlib import Path

from trimodal.errors import ConfigError, StorageError

_held: set[int] = set()
"""Descriptors of locks of this process."""


def _let_go() -> None:
    """In a forked process, such as a loader's, which may outlive the one that holds the lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


class Lock:
    """An advisory lock that ends with the process, however it ends.

    Args:
        path: a folder that is there, or a file, which is made.
        name: what it is called if it is in use.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._descriptor: int | None = None

    def __enter__(self) -> "Lock":
        """Take it.

        Raises:
            ConfigError: another process holds it.
            StorageError: there is no such folder, or its file system has no locks.
        """
        mode = os.O_RDONLY if self._path.is_dir() else os.O_RDWR | os.O_CREAT
        try:
            descriptor = os.open(self._path, mode | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StorageError(f"{self._name} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise ConfigError(f"{self._name} is in use by another process") from None
            raise StorageError(f"{self._name} cannot be locked: {error.strerror}") from error
        _held.add(descriptor)
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.close(self._descriptor)
        self._descriptor = None
