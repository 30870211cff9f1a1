"""A model behind an asynchronous queue: media in, embeddings or media out, no web library.

embeddings = await engine.embed(parse_inputs("a red circle"))
made = await engine.generate(Order(item, to=Modality.VISION))
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from trimodal.assembly import embedding_cost
from trimodal.batch import Modality, Sample
from trimodal.config import ModelConfig
from trimodal.errors import NumericError, StorageError
from trimodal_serving.admission import Admission
from trimodal_serving.codes import Codec, Codes
from trimodal_serving.composition import Composition
from trimodal_serving.decoders import Decoders, check_lengths, most_tokens
from trimodal_serving.errors import ServingError
from trimodal_serving.fulfilment import Fulfilment, Made
from trimodal_serving.inputs import Input
from trimodal_serving.meter import Meter, unmeasured
from trimodal_serving.orders import Order
from trimodal_serving.scheduler import Scheduler, in_order
from trimodal_serving.worker import Embedder, Worker

if TYPE_CHECKING:  # slow to import; the model does so in its own thread
    from trimodal.models import TrimodalModel
    from trimodal.processors import TrimodalProcessor

QUEUED_BATCHES = 16
"""Batches of work that the server takes in."""
DRAIN_SECONDS = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedding:
    """The answer to one input."""

    vector: np.ndarray
    """(E,) float32, unit norm."""
    tokens: dict[Modality, int]
    """Tokens of the model by modality."""


@dataclass(frozen=True)
class _Running:
    """What exists once the model is loaded."""

    processor: "TrimodalProcessor"
    architecture: ModelConfig
    generates: tuple[str, ...]
    scheduler: Scheduler
    fulfilment: Fulfilment
    codec: Codec
    signature: np.ndarray


class Engine:
    """Decodes media in some threads and runs the model in one, under one bound on the work inside.

    Texts are tokenised in a thread of their own, so that they never wait for media. Belongs to one
    event loop.
    """

    def __init__(
        self,
        load: Callable[[], Embedder],
        token_budget: int = 16_384,
        admission: Admission | None = None,
        meter: Meter = unmeasured,
    ) -> None:
        """Remember how to load; nothing heavy happens before `start`.

        Args:
            load: gives the model; run in the thread that will compute.
            token_budget: tokens of a batch.
            admission: bounds the work inside; None bounds it to `QUEUED_BATCHES` of them.
            meter: told what is measured.
        """
        self._load = load
        self._meter = meter
        self._token_budget = token_budget
        self._admission = admission or Admission(QUEUED_BATCHES * token_budget)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._decoders = Decoders(meter)
        self._running: _Running | None = None
        self._closing = False

    async def start(self) -> None:
        """Load the model and compute a first vector, which also warms it up.

        Raises:
            StorageError: the model cannot be loaded, or its processor does not fit it.
            NumericError: the model computes no finite vector.
        """
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(self._worker, self._load)
        processor = model.processor
        if processor is None:
            raise StorageError("the model has no processor, so it cannot be served")
        compute = Worker(model, self._token_budget)
        sample = await loop.run_in_executor(self._worker, _first_sample, processor)
        first = (await loop.run_in_executor(self._worker, compute, [sample]))[0]
        if isinstance(first, ServingError):
            if first.__cause__ is None:
                raise NumericError("the model computes no finite vector, its weights are broken")
            logger.error("the model failed on its first sample", exc_info=first)
            raise StorageError("the model fails on what its processor makes of media") from first
        generating = cast("TrimodalModel", model)
        scheduler = Scheduler(
            compute,
            self._worker,
            self._token_budget,
            self._observe,
            lambda kind: Composition(generating, kind),
            self._meter,
        )
        scheduler.canary = sample
        scheduler.interludes.watch(generating)
        codec = Codec(processor, self._decoders, self._admission, self._worker)
        fulfilment = Fulfilment(
            generating, processor, self._decoders, self._admission, scheduler, codec
        )
        self._running = _Running(
            processor, model.architecture, _generates(model), scheduler, fulfilment, codec, first
        )

    def _observe(self, tokens: int, seconds: float) -> None:
        self._admission.observe(tokens, seconds)
        self._meter("computed_tokens", tokens)
        self._meter("computed_seconds", seconds)

    def check(self) -> None:
        """Return if requests are answered.

        Raises:
            ServingError: the model is being loaded, or the server stops.
        """
        self._ready()

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The lengths at which an embedding may be cut, in rising order.

        Raises:
            ServingError: the server is not ready.
        """
        return self._ready().architecture.dimensions

    @property
    def architecture(self) -> ModelConfig:
        """The sizes of the model.

        Raises:
            ServingError: the server is not ready.
        """
        return self._ready().architecture

    @property
    def signature(self) -> np.ndarray:
        """(E,) float32: the vector of one medium of each kind, which tells models apart.

        Raises:
            ServingError: the server is not ready.
        """
        return self._ready().signature

    async def encode(self, item: Input) -> Codes:
        """See `Codec.encode`."""
        return await self._ready().codec.encode(item)

    async def decode(self, modality: Modality, rows: Sequence[Sequence[int]]) -> str | np.ndarray:
        """See `Codec.decode`."""
        return await self._ready().codec.decode(modality, rows)

    @property
    def batch_seconds(self) -> float:
        """How long the model has been at one batch or step; 0 while it does nothing."""
        return 0.0 if self._running is None else self._running.scheduler.batch_seconds

    @property
    def generates(self) -> tuple[str, ...]:
        """What the model learnt to generate, of `image`, `text`, `speech` and `answers`.

        These are left out only where it is known to have learnt none.

        Raises:
            ServingError: the server is not ready.
        """
        return self._ready().generates

    def _ready(self) -> _Running:
        if self._closing:
            raise ServingError(503, "draining", "the server stops", retry_after=1)
        if self._running is None:
            raise ServingError(503, "loading", "the model is being loaded", retry_after=1)
        return self._running

    async def embed(self, inputs: Sequence[Input]) -> list[Embedding]:
        """Embed inputs, in their order; one that fails makes the request fail.

        Cancelling this drops all of them that are not being computed already.

        Raises:
            ServingError: not ready, full, or an input that cannot be embedded; `param` says which.
        """
        running = self._ready()
        check_lengths(inputs, running.processor.config.max_text_tokens)
        most = sum(most_tokens(item, running.architecture) for item in inputs)
        with self._admission.admit(most) as ticket:
            samples = await self._decoders.samples(inputs, running.processor)
            ticket.settle(sum(map(embedding_cost, samples)))
            vectors = await in_order([running.scheduler.submit(s) for s in samples], inputs)
        return [
            Embedding(vector, {m: medium.num_tokens for m, medium in sample.media.items()})
            for vector, sample in zip(vectors, samples, strict=True)
        ]

    async def generate(self, order: Order) -> Made:
        """Carry out an order, see `Fulfilment.generate`.

        Raises:
            ServingError: not ready, full, or an order that cannot be carried out.
        """
        return await self._ready().fulfilment.generate(order)

    def stream(self, order: Order) -> AsyncGenerator[str | np.ndarray | Made, None]:
        """The same for one output, piece by piece, see `Fulfilment.stream`."""
        return self._ready().fulfilment.stream(order)

    async def close(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Take nothing in any more, let what is inside finish for a while, then stop."""
        self._closing = True
        try:
            async with asyncio.timeout(drain_seconds):
                while not self._admission.idle:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            logger.warning("stopped with %d tokens unfinished", self._admission.tokens)
        if self._running is not None:
            await self._running.scheduler.stop()
            self._running.scheduler.interludes.close()
        self._decoders.close()
        self._worker.shutdown(wait=False, cancel_futures=True)


def _first_sample(processor: "TrimodalProcessor") -> Sample:
    """The smallest medium of each modality, so that a first vector passes all of the model."""
    sources = {
        Modality.VISION: np.zeros((1, 1, 3), np.uint8),
        Modality.TEXT: "ready",
        Modality.SPEECH: (np.zeros(1, np.float32), 16_000),
    }
    return Sample("0", {m: processor.medium(m, source) for m, source in sources.items()}, 0)


def _generates(model: Embedder) -> tuple[str, ...]:
    kinds = tuple(model.config.generates)
    answers = "text" in kinds and model.config.answers is not False
    return (*kinds, "answers") if answers else kinds
