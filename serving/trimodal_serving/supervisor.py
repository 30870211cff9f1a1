"""Keeps one process with the model alive: what dies, hangs or computes nothing is replaced.

supervisor = Supervisor(setting, meter, 120.0, LastingNursery())
await supervisor.start(); link = supervisor.link
"""

import asyncio
import contextlib
import logging
import math
import time
from typing import TYPE_CHECKING

from trimodal.errors import ConfigError, NumericError, StoppedError, StorageError, TrimodalError
from trimodal_serving.errors import ServingError
from trimodal_serving.link import Link
from trimodal_serving.meter import Meter
from trimodal_serving.nursery import Child, LastingNursery, NurseryLostError

if TYPE_CHECKING:
    from trimodal_serving.backend import Setting
    from trimodal_serving.channel import Tree

LOOK_SECONDS = 0.25
SILENT_SECONDS = 10.0
"""Without a beat, after which a process hangs; four times that while it loads."""
STALE_SECONDS = 2.0
"""Without a beat, after which the server calls itself not ready."""
BRIEF_SECONDS = 5.0
"""A process that lived no longer is not replaced at once, but after twice the time of the last."""
LONGEST_PAUSE = 30.0
MOST_FAILED = 3
"""Batches in a row on which a model fails, and on a sample that it once computed, too; then
something in its process is broken for good."""

logger = logging.getLogger(__name__)


class Supervisor:
    """Starts the process of the model, watches it and replaces it."""

    def __init__(
        self, setting: "Setting", meter: Meter, batch_seconds: float, nursery: LastingNursery
    ) -> None:
        """Remember how; nothing happens before `start`.

        Args:
            setting: of the backend.
            meter: told what the backend measures, and of each restart.
            batch_seconds: after which a batch that is not done hangs.
            nursery: which forks the process; whoever made it closes it.
        """
        self._setting = setting
        self._meter = meter
        self._batch_seconds = batch_seconds
        self._nursery = nursery
        self._watching: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._was_ready = False
        self._restart_seconds = 3.0

    @property
    def link(self) -> Link:
        """To the process that answers.

        Raises:
            ServingError: there is none at the moment.
        """
        if self._link is None or self._link.ended:
            raise self.absence()
        return self._link

    def check(self) -> None:
        """Return if the process answers and said so lately.

        Raises:
            ServingError: it does not.
        """
        if time.monotonic() - self.link.last_beat > STALE_SECONDS:
            raise self.absence()

    def absence(self) -> ServingError:
        """Why there is no process to answer."""
        if not self._was_ready:
            return ServingError(503, "loading", "the model is being loaded", retry_after=1)
        message = "the process of the model is being started again"
        seconds = max(1, math.ceil(self._restart_seconds))
        return ServingError(503, "worker_restarting", message, retry_after=seconds)

    async def start(self) -> "Tree":
        """Start the first process; returns what it says of its model.

        Raises:
            TrimodalError: it cannot load the model.
        """
        try:
            child, link, reading, said = await self._begin()
        except NurseryLostError:
            raise StoppedError("the process of the model ended while it started") from None
        except OSError as error:
            message = f"the process of the model cannot be started: {error.strerror}"
            raise StoppedError(message) from error
        self._link, self._was_ready = link, True
        self._watching = asyncio.create_task(self._watch(child, link, reading))
        return said

    async def _begin(self) -> "tuple[Child, Link, asyncio.Task[None], Tree]":
        """A process whose model is loaded."""
        child = await self._nursery.spawn(self._setting)
        link = Link(child.channel, self._meter, self.absence)
        reading = asyncio.create_task(link.run())
        try:
            while not (link.started.done() or reading.done()):
                await asyncio.wait([link.started, reading], timeout=LOOK_SECONDS)
                if time.monotonic() - link.last_beat > 4 * SILENT_SECONDS:
                    break
            if not link.started.done() or link.started.cancelled():
                raise StoppedError("the process of the model ended while it loaded")
            said = link.started.result()
            if said["kind"] == "failed":
                raise _failure(said["code"], said["message"])
        except BaseException:
            await _end(child, reading)
            raise
        return child, link, reading, said

    async def _watch(self, child: Child, link: Link, reading: "asyncio.Task[None]") -> None:
        pause = 0.0
        while True:
            born = time.monotonic()
            try:
                await self._until_gone(link, reading)
            finally:
                self._link = None
                await _end(child, reading)
            lost = time.monotonic()
            pause = 0.0 if lost - born > BRIEF_SECONDS else min(LONGEST_PAUSE, 2 * pause + 0.1)
            child, link, reading = await self._again(pause)
            self._restart_seconds = time.monotonic() - lost
            self._link = link
            self._meter("worker_restarts", 1)
            logger.warning("the model answers again after %.1f s", self._restart_seconds)

    async def _until_gone(self, link: Link, reading: "asyncio.Task[None]") -> None:
        silent, last = 0.0, link.last_beat
        while not reading.done():
            await asyncio.wait([reading], timeout=LOOK_SECONDS)
            # counted in looks, so that a pause of this process is not taken for one of the other
            silent = silent + LOOK_SECONDS if link.last_beat == last else 0.0
            last = link.last_beat
            if silent > SILENT_SECONDS:
                logger.error("the process of the model is silent for %.0f s, it is ended", silent)
                return
            if link.batch_seconds > self._batch_seconds:
                logger.error("a batch takes more than %g s, it is ended", self._batch_seconds)
                return
            if link.failed_batches >= MOST_FAILED:
                logger.error("the model fails on everything, its process is ended")
                return
        logger.error("the process of the model ended")

    async def _again(self, pause: float) -> "tuple[Child, Link, asyncio.Task[None]]":
        while True:
            await asyncio.sleep(pause)
            try:
                child, link, reading, _ = await self._begin()
            except NurseryLostError:
                logger.error("the nursery ended, another is started")
            except TrimodalError as error:
                logger.error("the model cannot be loaded again: %s", error)
            except OSError as error:
                logger.error("no process can be started: %s", error.strerror)
            except Exception:  # without threads, for one; there may be some again
                logger.exception("no process can be started")
            else:
                return child, link, reading
            pause = min(LONGEST_PAUSE, 2 * pause + 0.1)

    async def close(self) -> None:
        """End the process; what it was asked fails."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])


async def _end(child: Child, reading: "asyncio.Task[None]") -> None:
    child.kill()
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    child.release()


def _failure(code: int, message: str) -> TrimodalError:
    for kind in (ConfigError, NumericError, StorageError):
        if kind.exit_code == code:
            return kind(message)
    return StorageError("the model cannot be loaded; the log says why")
