"""The engine of another process as if it were here.

engine = RemoteEngine(Setting("runs/demo/model"), meter, BATCH_SECONDS, LastingNursery())
embeddings = await engine.embed(inputs)
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np

from trimodal.batch import Modality
from trimodal.config import ModelConfig
from trimodal.schema import parse
from trimodal_serving.admission import Admission
from trimodal_serving.backend import Setting
from trimodal_serving.codes import Codes
from trimodal_serving.decoders import check_lengths, most_tokens
from trimodal_serving.engine import DRAIN_SECONDS, QUEUED_BATCHES, Embedding
from trimodal_serving.errors import ServingError
from trimodal_serving.fulfilment import Made
from trimodal_serving.inputs import Input
from trimodal_serving.link import Piece
from trimodal_serving.messages import Opened, Parcel
from trimodal_serving.meter import Meter
from trimodal_serving.nursery import LastingNursery
from trimodal_serving.orders import Order
from trimodal_serving.supervisor import Supervisor

BATCH_SECONDS = 120.0
"""After which a batch hangs."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Model:
    architecture: ModelConfig
    generates: tuple[str, ...]
    signature: np.ndarray


class RemoteEngine:
    """A `Service` whose model computes in a process that may die.

    Requests are counted here, so a full server refuses them without asking; those that are inside
    when the process dies get 503 `worker_restarting`, and the next ones are answered as soon as
    there is another.
    """

    def __init__(
        self, setting: Setting, meter: Meter, batch_seconds: float, nursery: LastingNursery
    ) -> None:
        self._meter = meter
        self.admission = Admission(QUEUED_BATCHES * setting.token_budget)
        self._supervisor = Supervisor(setting, self._measured, batch_seconds, nursery)
        self._model: _Model | None = None
        self._computed_tokens = 0.0
        self._closing = False

    def _measured(self, name: str, value: float) -> None:
        if name == "computed_tokens":
            self._computed_tokens = value
        elif name == "computed_seconds":
            self.admission.observe(self._computed_tokens, value)
        self._meter(name, value)

    async def start(self) -> None:
        """Start the process, and wait until its model has computed a first vector.

        Raises:
            ConfigError: there is no such device, or no such folder.
            StorageError: the model cannot be loaded, or its processor does not fit it.
            NumericError: the model computes no finite vector.
            StoppedError: the process was ended from outside.
        """
        said = await self._supervisor.start()
        architecture = parse(ModelConfig, said["architecture"], "model")
        signature = np.array(said["signature"], dtype=np.float32)
        self._model = _Model(architecture, tuple(said["generates"]), signature)

    def check(self) -> None:
        """Return if requests are answered.

        Raises:
            ServingError: the model is being loaded, or the server stops.
        """
        self._ready()
        self._supervisor.check()

    def is_ready(self) -> bool:
        """Whether requests are answered."""
        try:
            self.check()
        except ServingError:
            return False
        return True

    def _ready(self) -> _Model:
        if self._closing:
            raise ServingError(503, "draining", "the server stops", retry_after=1)
        if self._model is None:
            raise self._supervisor.absence()
        return self._model

    @property
    def architecture(self) -> ModelConfig:
        """The sizes of the model."""
        return self._ready().architecture

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The lengths at which an embedding may be cut, in rising order."""
        return self._ready().architecture.dimensions

    @property
    def generates(self) -> tuple[str, ...]:
        """What the model learnt to generate, see `Engine.generates`."""
        return self._ready().generates

    @property
    def signature(self) -> np.ndarray:
        """(E,) float32: the vector of one medium of each kind, which tells models apart."""
        return self._ready().signature

    async def embed(self, inputs: Sequence[Input]) -> list[Embedding]:
        """See `Engine.embed`."""
        architecture = self._ready().architecture
        check_lengths(inputs, architecture.max_text_tokens)
        most = sum(most_tokens(item, architecture) for item in inputs)
        with self.admission.admit(most) as ticket:
            parcel = Parcel()
            tree = {"inputs": parcel.inputs(inputs)}
            link = self._supervisor.link
            result, buffers = await link.call("embed", tree, parcel.buffers, ticket.settle)
            return Opened(buffers).embeddings(result)

    async def generate(self, order: Order) -> Made:
        """See `Engine.generate`."""
        with self.admission.admit(self._least(order)) as ticket:
            parcel = Parcel()
            tree = {"order": parcel.order(order)}
            link = self._supervisor.link
            result, buffers = await link.call("generate", tree, parcel.buffers, ticket.settle)
            return Opened(buffers).made(result)

    async def stream(self, order: Order) -> AsyncGenerator[str | np.ndarray | Made, None]:
        """See `Engine.stream`."""
        with self.admission.admit(self._least(order)) as ticket:
            parcel = Parcel()
            tree = {"order": parcel.order(order)}
            link = self._supervisor.link
            pieces = link.pieces("stream", tree, parcel.buffers, ticket.settle)
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    if isinstance(piece, Piece):
                        yield Opened(piece.buffers).output(piece.tree)
                    else:
                        yield Opened(piece[1]).made(piece[0])

    async def encode(self, item: Input) -> Codes:
        """See `Codec.encode`."""
        architecture = self._ready().architecture
        check_lengths([item], architecture.max_text_tokens)
        with self.admission.admit(most_tokens(item, architecture)) as ticket:
            parcel = Parcel()
            tree = {"inputs": parcel.inputs([item])}
            link = self._supervisor.link
            result, _ = await link.call("encode", tree, parcel.buffers, ticket.settle)
            return Codes(**result)

    async def decode(self, modality: Modality, rows: Sequence[Sequence[int]]) -> str | np.ndarray:
        """See `Codec.decode`."""
        self._ready()
        with self.admission.admit(sum(map(len, rows))) as ticket:
            tree = {"modality": int(modality), "codes": rows}
            link = self._supervisor.link
            result, buffers = await link.call("decode", tree, [], ticket.settle)
            return Opened(buffers).output(result)

    def _least(self, order: Order) -> int:
        """What is held until the backend says what an order can cost."""
        architecture = self._ready().architecture
        check_lengths([order.item], architecture.max_text_tokens)
        return len(order.seeds) * max(1, 2 * most_tokens(order.item, architecture))

    async def close(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Take nothing in any more, let what is inside finish for a while, then end the process."""
        self._closing = True
        try:
            async with asyncio.timeout(drain_seconds):
                while not self.admission.idle:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            logger.warning("stopped with %d tokens unfinished", self.admission.tokens)
        await self._supervisor.close()
