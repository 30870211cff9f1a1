"""A model behind an asynchronous queue: media in, embeddings out, no web library.

embeddings = await engine.embed(parse_inputs("a red circle", None))
"""

import asyncio
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trimodal.assembly import embedding_cost
from trimodal.batch import Medium, Modality, Sample
from trimodal.config import ModelConfig
from trimodal.errors import DataError, NumericError, StorageError
from trimodal_serving.admission import Admission
from trimodal_serving.errors import ServingError, internal, rejected
from trimodal_serving.inputs import Input, Source
from trimodal_serving.media import EncodedMedium, invalid
from trimodal_serving.scheduler import Scheduler
from trimodal_serving.worker import Embedder, Worker

if TYPE_CHECKING:  # slow to import; the model does so in its own thread
    from trimodal.processors import TrimodalProcessor

CHUNK = 8
"""Texts tokenised before another request gets its turn; other inputs are decoded one by one."""
MAX_CHARACTERS = 64
"""Characters a token of the longest text; one beyond that is refused before anything is done.

A piece has at most 16 characters, and normalising makes one of at most four: only runs of spaces
or invisible characters could bring a longer text within the tokens.
"""
QUEUED_BATCHES = 16
"""Batches of work that the server takes in."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


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
    scheduler: Scheduler


class Engine:
    """Decodes media in some threads and runs the model in one, under one bound on the work inside.

    Texts are tokenised in a thread of their own, so that they never wait for media. Belongs to one
    event loop.
    """

    def __init__(self, load: Callable[[], Embedder], token_budget: int = 16_384) -> None:
        """Remember how to load; nothing heavy happens before `start`.

        Args:
            load: gives the model; run in the thread that will compute.
            token_budget: tokens of a batch.
        """
        self._load = load
        self._token_budget = token_budget
        self._admission = Admission(QUEUED_BATCHES * token_budget)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self._num_decoders = min(4, os.cpu_count() or 1)
        self._decoders = ThreadPoolExecutor(self._num_decoders, thread_name_prefix="decode")
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
        scheduler = Scheduler(compute, self._worker, self._token_budget, self._admission.observe)
        self._running = _Running(processor, model.architecture, scheduler)

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
        _check_lengths(inputs, running.processor.config.max_text_tokens)
        most = sum(_most_tokens(item, running.architecture) for item in inputs)
        with self._admission.admit(most) as ticket:
            samples = await self._decode(inputs, running.processor)
            ticket.tokens = sum(map(embedding_cost, samples))
            vectors = await _in_order([running.scheduler.submit(s) for s in samples], inputs)
        return [
            Embedding(vector, {m: medium.num_tokens for m, medium in sample.media.items()})
            for vector, sample in zip(vectors, samples, strict=True)
        ]

    async def _decode(
        self, inputs: Sequence[Input], processor: "TrimodalProcessor"
    ) -> list[Sample]:
        loop = asyncio.get_running_loop()
        # alone a request has a chunk for every thread; beside others it waits for its turn
        turns = asyncio.Semaphore(self._num_decoders)

        async def decode(chunk: Sequence[Input]) -> list[Sample]:
            executor = self._tokenizer if _is_text(chunk[0]) else self._decoders
            async with turns:
                return await loop.run_in_executor(executor, _samples, chunk, processor)

        chunks = [asyncio.create_task(decode(chunk)) for chunk in _chunks(inputs)]
        return [sample for chunk in await _in_order(chunks) for sample in chunk]

    async def close(self, drain_seconds: float = 30.0) -> None:
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
        for executor in (self._tokenizer, self._decoders, self._worker):
            executor.shutdown(wait=False, cancel_futures=True)


async def _in_order(
    futures: Sequence[asyncio.Future[T]], inputs: Sequence[Input] | None = None
) -> list[T]:
    """The results, or the error of the first that failed; then the others are given up."""
    results = []
    try:
        for i, future in enumerate(futures):
            try:
                results.append(await future)
            except ServingError as error:
                raise error.at(inputs[i].where) if inputs else error from error.__cause__
    finally:
        for future in futures:
            if not future.cancel() and not future.cancelled():
                future.exception()  # looked at, so that asyncio does not complain about it
    return results


def _first_sample(processor: "TrimodalProcessor") -> Sample:
    """The smallest medium of each modality, so that a first vector passes all of the model."""
    sources = {
        Modality.VISION: np.zeros((1, 1, 3), np.uint8),
        Modality.TEXT: "ready",
        Modality.SPEECH: (np.zeros(1, np.float32), 16_000),
    }
    return Sample("0", {m: processor.medium(m, source) for m, source in sources.items()}, 0)


def _check_lengths(inputs: Sequence[Input], max_text_tokens: int) -> None:
    limit = MAX_CHARACTERS * max_text_tokens
    for item in inputs:
        text = item.media.get(Modality.TEXT)
        if isinstance(text, str) and len(text) > limit:
            message = f"text has {len(text)} characters, the limit is {limit}"
            raise ServingError(400, "context_length_exceeded", message, param=item.where)


def _is_text(item: Input) -> bool:
    return item.media.keys() == {Modality.TEXT}


def _chunks(inputs: Sequence[Input]) -> Iterator[list[Input]]:
    for is_text, group in itertools.groupby(inputs, _is_text):
        items = list(group)
        size = CHUNK if is_text else 1
        for i in range(0, len(items), size):
            yield items[i : i + size]


def _most_tokens(item: Input, architecture: ModelConfig) -> int:
    speech = architecture.speech_input
    most = {
        Modality.VISION: architecture.vision_input.max_tokens,
        Modality.TEXT: architecture.max_text_tokens,
        Modality.SPEECH: math.ceil(speech.max_seconds * 1000 / speech.hop_ms / speech.stride),
    }
    tokens = sum(
        min(most[modality], 4 * len(source) + 1) if isinstance(source, str) else most[modality]
        for modality, source in item.media.items()
    )
    return tokens * (1 + (len(item.media) > 1))


def _samples(inputs: Sequence[Input], processor: "TrimodalProcessor") -> list[Sample]:
    samples = []
    for item in inputs:
        try:
            media = {m: _medium(m, source, processor) for m, source in item.media.items()}
        except ServingError as error:
            raise error.at(item.where) from None
        except DataError as error:
            raise rejected(error, item.where) from None
        except Exception as error:
            raise internal(item.where) from error
        samples.append(Sample(item.where, media, 0))
    return samples


def _medium(modality: Modality, source: Source, processor: "TrimodalProcessor") -> Medium:
    if isinstance(source, EncodedMedium):
        medium = processor.medium(modality, source.decode())
        if not medium.features.isfinite().all():
            raise invalid(modality, "holds numbers too large to compute with")
        return medium
    return processor.medium(modality, source)
