"""The other end of a backend: calls over a channel, all of which end when the backend does.

link = Link(channel, meter, lost); result, buffers = await link.call("embed", {"inputs": tree})
"""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimodal_serving.caller import current
from trimodal_serving.channel import BrokenChannelError, Buffer, Channel, Tree
from trimodal_serving.errors import ServingError
from trimodal_serving.messages import error_of
from trimodal_serving.meter import Meter

logger = logging.getLogger(__name__)

Result = tuple[Any, list[bytes]]


@dataclass(frozen=True)
class Piece:
    """A part of a result, or what it is so far; see `Parcel.output`."""

    tree: Any
    buffers: list[bytes]


@dataclass
class _Call:
    arrived: "asyncio.Queue[Piece | Result | ServingError]" = field(default_factory=asyncio.Queue)
    on_cost: Callable[[int], None] | None = None


class Link:
    """Requests to one backend, see there for the messages."""

    def __init__(self, channel: Channel, meter: Meter, lost: Callable[[], ServingError]) -> None:
        """Begin with no calls.

        Args:
            channel: to the backend.
            meter: told what the backend measures.
            lost: what calls fail with when the backend is gone.
        """
        self._channel = channel
        self._meter = meter
        self._lost = lost
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count()
        self.ended = False
        """Whether the backend is gone."""
        self.batch_seconds = 0.0
        """How long the model has been at one batch, as of the last beat."""
        self.failed_batches = 0
        """On how many batches in a row the model failed, likewise; see `Scheduler`."""
        self.last_beat = time.monotonic()
        self.started: asyncio.Future[Tree] = asyncio.get_running_loop().create_future()
        """What the backend says once its model is loaded, or has failed to."""

    async def run(self) -> None:
        """Take what arrives, until the backend is gone; then everything that was asked fails."""
        try:
            while True:
                self._take(*await self._channel.receive())
        except EOFError:
            pass
        except BrokenChannelError:
            logger.error("a message of the model's process was broken")
        finally:
            self.ended = True
            self.started.cancel()
            for call in self._calls.values():
                call.arrived.put_nowait(self._lost())

    def _take(self, tree: Tree, buffers: list[bytes]) -> None:
        kind = tree["kind"]
        if kind == "beat":
            self.last_beat = time.monotonic()
            self.batch_seconds = tree["batch_seconds"]
            self.failed_batches = tree["failed_batches"]
            for name, value in tree["measured"]:
                self._meter(name, value)
        elif kind in ("ready", "failed"):
            if not self.started.done():
                self.started.set_result(tree)
        elif (call := self._calls.get(tree["number"])) is not None:
            if kind == "cost":
                if call.on_cost is not None:
                    call.on_cost(tree["tokens"])
            elif kind == "piece":
                call.arrived.put_nowait(Piece(tree["piece"], buffers))
            elif kind == "error":
                call.arrived.put_nowait(error_of(tree["error"]))
            else:
                call.arrived.put_nowait((tree["result"], buffers))

    async def call(
        self,
        kind: str,
        tree: Tree,
        buffers: Sequence[Buffer] = (),
        on_cost: Callable[[int], None] | None = None,
    ) -> Result:
        """The result of one request; cancelling this cancels it in the backend.

        Raises:
            ServingError: the backend's, or that it is gone.
        """
        number, call = self._ask(kind, tree, buffers, on_cost)
        done = False
        try:
            await self._channel.drain()
            arrived: Piece | Result | ServingError
            while isinstance(arrived := await call.arrived.get(), Piece):
                pass
            done = True
        finally:
            self._end(number, done=done)
        if isinstance(arrived, ServingError):
            raise arrived
        return arrived

    async def pieces(
        self,
        kind: str,
        tree: Tree,
        buffers: Sequence[Buffer] = (),
        on_cost: Callable[[int], None] | None = None,
    ) -> AsyncGenerator[Piece | Result, None]:
        """What a request gives piece by piece, and in the end its result; see `call`."""
        number, call = self._ask(kind, tree, buffers, on_cost)
        done = False
        try:
            await self._channel.drain()
            while True:
                arrived = await call.arrived.get()
                done = not isinstance(arrived, Piece)
                if isinstance(arrived, ServingError):
                    raise arrived
                yield arrived
                if done:
                    return
        finally:
            self._end(number, done=done)

    def _ask(
        self,
        kind: str,
        tree: Tree,
        buffers: Sequence[Buffer],
        on_cost: Callable[[int], None] | None,
    ) -> tuple[int, _Call]:
        if self.ended:
            raise self._lost()
        number, call, caller = next(self._numbers), _Call(on_cost=on_cost), current()
        whose = {
            "tenant": caller.tenant,
            "priority": caller.priority,
            "request_id": caller.request_id,
        }
        self._channel.send({"kind": kind, "number": number, **whose, **tree}, buffers)
        self._calls[number] = call
        return number, call

    def _end(self, number: int, *, done: bool) -> None:
        del self._calls[number]
        if not done:
            self._channel.send({"kind": "cancel", "number": number})
