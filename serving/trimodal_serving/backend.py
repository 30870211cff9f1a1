"""An engine in a process of its own: requests from a channel in, results out.

serve(sock, Setting(model="runs/demo/model"))
"""

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from trimodal.batch import Modality
from trimodal.errors import TrimodalError
from trimodal.schema import to_dict
from trimodal_serving.admission import Admission
from trimodal_serving.caller import Caller, acting
from trimodal_serving.channel import BrokenChannelError, Channel, Tree
from trimodal_serving.engine import Engine
from trimodal_serving.errors import ServingError, internal
from trimodal_serving.fulfilment import Made
from trimodal_serving.logs import log_to_stderr
from trimodal_serving.messages import Opened, Parcel, error_tree
from trimodal_serving.worker import Embedder

BEAT_SECONDS = 0.25
COST_SECONDS = 0.02
"""After which the server is told what a request costs, if it is not answered by then."""
HELD_IN_FULL = ("embed", "encode", "decode")
"""Requests for which the server holds the most that they can cost before it is told anything. Of
others it knows the least, and is told at once."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """Which model is computed, and how."""

    model: str
    device: str = "auto"
    token_budget: int = 16_384
    weights: str = "fp32"
    replica: int = 0
    """Which of the processes of the server it is, from 0."""
    replicas: int = 1

    def tree(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def load_model(setting: Setting) -> Embedder:
    """The model of a folder on its device; several processes share the cores, or GPUs in turns.

    Raises:
        ConfigError: there is no such device.
        StorageError: the folder is not a model.
    """
    import torch

    from trimodal.models import load
    from trimodal.models.loading import chosen_device

    device = chosen_device(setting.device)
    if device == "cuda":
        device = f"cuda:{setting.replica % torch.cuda.device_count()}"
        torch.cuda.set_device(device)  # of this thread, the only one that computes
    elif setting.replicas > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // setting.replicas))
    return load(setting.model, device, setting.weights)


def serve(sock: socket.socket, setting: Setting) -> None:
    """Serve until the other side closes; the whole life of a process."""
    log_to_stderr()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(sock, setting))


async def _serve(sock: socket.socket, setting: Setting) -> None:
    await Backend(await Channel.open(sock), lambda: load_model(setting), setting.token_budget).run()


class Cost:
    """What a request costs, told only if it takes longer than some seconds.

    The most it can cost is known at once, and soon what it does; each word wakes the server.
    """

    def __init__(self, channel: Channel, number: int, seconds: float) -> None:
        self._channel = channel
        self._seconds = seconds
        self._tree: Tree = {"kind": "cost", "number": number}
        self._timer: asyncio.TimerHandle | None = None
        self._told = False

    def known(self, tokens: int) -> None:
        """Tell this, at once or soon, and nothing that was known before."""
        self._tree["tokens"] = tokens
        if self._told or not self._seconds:
            self._tell()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._tell)

    def _tell(self) -> None:
        self._told = True
        self._channel.send(self._tree)

    def forget(self) -> None:
        """There is nothing to be told any more."""
        if self._timer is not None:
            self._timer.cancel()


class Backend:
    """Answers the messages of one channel with one engine.

    In come `embed`, `encode`, `decode`, `generate` and `stream` with a number, `cancel` with the
    same number, and `drain`. Out go `ready` or `failed` once, then by number `cost`, `piece`,
    `result` or `error`; `beat` every quarter of a second says how long the model has been at one
    batch, on how many in a row it failed, and what was measured since the last.
    """

    def __init__(self, channel: Channel, load: Callable[[], Embedder], token_budget: int) -> None:
        self._channel = channel
        self._measured: list[tuple[str, float]] = []
        self._failed_batches = 0
        # how much may be inside is decided where requests arrive
        self._engine = Engine(load, token_budget, Admission(math.inf), self._meter)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def _meter(self, name: str, value: float) -> None:
        if name == "failed_batches":
            self._failed_batches = int(value)
        else:
            self._measured.append((name, value))

    async def run(self) -> None:
        """Load, then answer until the channel ends."""
        background = [asyncio.create_task(self._beat()), asyncio.create_task(self._start())]
        try:
            while True:
                tree, buffers = await self._channel.receive()
                self._take(tree, buffers)
        except EOFError:
            pass
        except BrokenChannelError:
            logger.error("a message from the server was broken")
        finally:
            for task in [*background, *self._tasks.values()]:
                task.cancel()
            self._channel.close()
            await self._engine.close(0)

    async def _start(self) -> None:
        try:
            await self._engine.start()
        except TrimodalError as error:
            tree = {"kind": "failed", "code": error.exit_code, "message": str(error)}
            self._channel.send(tree)
            return
        except Exception:
            logger.exception("the model cannot be loaded")
            self._channel.send({"kind": "failed", "code": 1, "message": ""})
            return
        engine = self._engine
        tree = {"architecture": to_dict(engine.architecture), "generates": engine.generates}
        # single floats are exact in JSON
        tree["signature"] = engine.signature.tolist()
        self._channel.send({"kind": "ready", **tree})

    async def _beat(self) -> None:
        while True:
            measured, self._measured = self._measured, []
            tree = {"kind": "beat", "batch_seconds": self._engine.batch_seconds}
            tree |= {"failed_batches": self._failed_batches, "measured": measured}
            self._channel.send(tree)
            await asyncio.sleep(BEAT_SECONDS)

    def _take(self, tree: Tree, buffers: list[bytes]) -> None:
        kind, number = tree["kind"], tree["number"]
        if kind == "cancel":
            task = self._tasks.get(number)
            if task is not None:
                task.cancel()
            return
        task = asyncio.create_task(self._answer(kind, number, tree, Opened(buffers)))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _answer(self, kind: str, number: int, tree: Tree, opened: Opened) -> None:
        cost = Cost(self._channel, number, COST_SECONDS if kind in HELD_IN_FULL else 0.0)
        caller = Caller(tree["tenant"], priority=tree["priority"], on_cost=cost.known)
        parcel = Parcel()
        result: Tree = {"kind": "result", "number": number}
        try:
            with acting(caller):
                result["result"] = await self._result(kind, number, tree, opened, parcel)
        except ServingError as error:
            self._refuse(number, tree["request_id"], error)
        except Exception as error:
            self._refuse(number, tree["request_id"], internal(cause=error))
        else:
            self._channel.send(result, parcel.buffers)
            await self._channel.drain()
        finally:
            cost.forget()

    async def _result(
        self, kind: str, number: int, tree: Tree, opened: Opened, parcel: Parcel
    ) -> Tree:
        engine = self._engine
        if kind == "embed":
            return parcel.embeddings(await engine.embed(opened.inputs(tree["inputs"])))
        if kind == "encode":
            (item,) = opened.inputs(tree["inputs"])
            return asdict(await engine.encode(item))
        if kind == "decode":
            made = await engine.decode(Modality(tree["modality"]), tree["codes"])
            return parcel.output(made)
        if kind == "generate":
            return parcel.made(await engine.generate(opened.order(tree["order"])))
        return parcel.made(await self._stream(number, opened, tree))

    async def _stream(self, number: int, opened: Opened, tree: Tree) -> Made:
        pieces = self._engine.stream(opened.order(tree["order"]))
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, Made):
                    return piece
                parcel = Parcel()
                told = {"kind": "piece", "number": number, "piece": parcel.output(piece)}
                self._channel.send(told, parcel.buffers)
                await self._channel.drain()
        raise internal()

    def _refuse(self, number: int, request_id: str, error: ServingError) -> None:
        if error.status == 500:
            logger.error("request %s failed", request_id, exc_info=error)
        self._channel.send({"kind": "error", "number": number, "error": error_tree(error)})
