"""Processes that open media, see `opening`: one that crashes, hangs or grows is replaced.

pixels_HWC = openers.picture(data, max_pixels=40_000_000)
"""

import hashlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from trimodal.batch import Modality
from trimodal.errors import DataError
from trimodal_serving.errors import ServingError
from trimodal_serving.media import invalid
from trimodal_serving.opening import Pipe

PATIENCE_SECONDS = 60.0
"""For one file; what computes as long is ended long before by the kernel."""
MOST_JOBS = 500
"""Files that one process opens before another takes its place."""
BANNED_SECONDS = 3600.0
MOST_BANNED = 1024
INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
"""What a process gets to know of the environment."""

logger = logging.getLogger(__name__)


class Opener:
    """One process."""

    def __init__(self) -> None:
        """Start it; it needs a quarter of a second before it answers."""
        self._sock, theirs = socket.socketpair()
        self._sock.settimeout(PATIENCE_SECONDS)
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "trimodal_serving.opening", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**environment, "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # it may quote what it reads
            )
        self._pipe = Pipe(self._sock)
        self.jobs = 0
        """How many files it was given."""

    def open(self, tree: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytearray]:
        """What `opening` makes of a file.

        Raises:
            OSError: it takes too long, or is gone.
            EOFError: it is gone.
        """
        self.jobs += 1
        self._pipe.send(tree, data)
        return self._pipe.receive()

    def kill(self) -> None:
        """End it, whatever it does; who waits for it is told that it is gone."""
        self._process.kill()

    def close(self) -> int:
        """End it, and forget it; the status with which it ended."""
        self._process.kill()
        self._sock.close()
        return self._process.wait()


class Openers:
    """As many processes as there are threads that ask, started when they are first needed."""

    def __init__(self) -> None:
        self._idle: list[Opener] = []
        self._all: set[Opener] = set()
        self._lock = threading.Lock()
        self._banned: dict[bytes, float] = {}
        self._closed = False

    def picture(self, data: bytes, max_pixels: int) -> np.ndarray:
        """The pixels (H, W, 3) uint8 of a file, see `trimodal.media.picture.read`.

        Raises:
            DataError: the file is refused.
            ServingError: it took too much time or memory, or the process with it; or there is no
                room for a process.
        """
        said, buffer = self._open(Modality.VISION, {"max_pixels": max_pixels}, data)
        return np.frombuffer(buffer, np.uint8).reshape(said["shape"])

    def recording(self, data: bytes, max_seconds: float) -> tuple[np.ndarray, int]:
        """Samples and rate of a file, see `trimodal.media.recording.read`.

        Raises:
            DataError: the file is refused.
            ServingError: it took too much time or memory, or the process with it; or there is no
                room for a process.
        """
        said, buffer = self._open(Modality.SPEECH, {"max_seconds": max_seconds}, data)
        return np.frombuffer(buffer, np.float32).reshape(said["shape"]), said["rate"]

    def _open(
        self, modality: Modality, tree: Mapping[str, Any], data: bytes
    ) -> tuple[dict[str, Any], bytearray]:
        self._check(modality, data)
        opener, is_usable = self._taken(), False
        try:
            said, buffer = opener.open(tree, data)
            is_usable = said.get("code") != "memory" and opener.jobs < MOST_JOBS
        except (OSError, EOFError):
            if self._closed:
                raise ServingError(503, "draining", "the server stops", retry_after=1) from None
            self._ban(data)
            raise _harmful(modality) from None
        finally:
            self._give(opener, is_usable=is_usable)
        if "code" not in said:
            return said, buffer
        if said["code"] == "memory":
            raise invalid(modality, "takes more memory to open than one may have")
        raise DataError(said["message"], code=said["code"])

    def _taken(self) -> Opener:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            try:
                opener = Opener()
            except OSError as error:
                logger.error("a process that opens media cannot be started: %s", error.strerror)
                message = "the server has no room for another process that opens media"
                raise ServingError(503, "overloaded", message, retry_after=1) from None
            self._all.add(opener)
            return opener

    def _give(self, opener: Opener, *, is_usable: bool) -> None:
        with self._lock:
            if is_usable and not self._closed:
                self._idle.append(opener)
                return
            self._all.discard(opener)
        status = opener.close()
        if not is_usable and opener.jobs < MOST_JOBS and not self._closed:
            logger.warning("a process that opens media ended with status %d", status)

    def _ban(self, data: bytes) -> None:
        with self._lock:
            while len(self._banned) >= MOST_BANNED:
                del self._banned[next(iter(self._banned))]
            self._banned[hashlib.sha256(data).digest()] = time.monotonic()

    def _check(self, modality: Modality, data: bytes) -> None:
        """Return unless the file has ended a process a while ago."""
        if not self._banned:
            return
        with self._lock:
            last = self._banned.get(hashlib.sha256(data).digest())
        if last is not None and time.monotonic() - last < BANNED_SECONDS:
            raise _harmful(modality)

    def close(self) -> None:
        """End all of them; what they were opening fails."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for opener in self._all.difference(idle):
                opener.kill()  # its thread forgets it
        for opener in idle:
            opener.close()


def _harmful(modality: Modality) -> ServingError:
    return invalid(modality, "cannot be opened: it breaks its reader, or takes too long")
