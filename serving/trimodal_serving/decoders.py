"""Threads in which texts are tokenised and media become numbers; processes open their files.

samples = await decoders.samples(inputs, processor)
"""

import asyncio
import contextlib
import itertools
import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from trimodal.batch import Medium, Modality, Sample
from trimodal.config import ModelConfig
from trimodal.errors import DataError
from trimodal_serving.caller import Priority, current
from trimodal_serving.errors import ServingError, internal, rejected
from trimodal_serving.inputs import Input, Keep
from trimodal_serving.media import TokenIds, invalid
from trimodal_serving.meter import Meter, unmeasured
from trimodal_serving.openers import Openers
from trimodal_serving.scheduler import in_order

if TYPE_CHECKING:  # slow to import; the model does so in its own thread
    from torch import Tensor

    from trimodal.processors import TrimodalProcessor

SHORT = 512
"""Characters of a text that is tokenised in less time than it takes to hand it to a thread."""
CHUNK = 8
"""Texts tokenised before another request gets its turn; other inputs are decoded one by one."""
MAX_CHARACTERS = 64
"""Characters a token of the longest text; one beyond that is refused before anything is done.

A piece has at most 16 characters, and normalising makes one of at most four: only runs of spaces
or invisible characters could bring a longer text within the tokens.
"""


class Decoders:
    """Texts are tokenised in a thread of their own, so that they never wait for media."""

    def __init__(self, meter: Meter = unmeasured) -> None:
        self._meter = meter
        self._lines: dict[tuple[Priority, str, bool], asyncio.Semaphore] = {}
        self._waiting: Counter[tuple[Priority, str, bool]] = Counter()
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self._num_decoders = min(4, os.cpu_count() or 1)
        self._decoders = ThreadPoolExecutor(self._num_decoders, thread_name_prefix="decode")
        self._openers = Openers()

    async def samples(
        self, inputs: Sequence[Input], processor: "TrimodalProcessor"
    ) -> list[Sample]:
        """A sample of each input, in their order; one that fails makes all of them fail.

        Raises:
            ServingError: an input that cannot be used; `param` says which.
        """
        start = time.monotonic()
        if len(inputs) == 1 and _is_short(inputs[0]):
            samples = self._samples(inputs, processor)
            self._meter("decode_seconds", time.monotonic() - start)
            return samples
        loop = asyncio.get_running_loop()
        # alone a request has a chunk for every thread; beside others it waits for its turn
        turns = asyncio.Semaphore(self._num_decoders)

        async def decode(chunk: Sequence[Input]) -> list[Sample]:
            is_text = _is_text(chunk[0])
            executor = self._tokenizer if is_text else self._decoders
            async with turns, self._turn(is_text):
                return await loop.run_in_executor(executor, self._samples, chunk, processor)

        chunks = [asyncio.create_task(decode(chunk)) for chunk in _chunks(inputs)]
        try:
            return [sample for chunk in await in_order(chunks) for sample in chunk]
        except asyncio.CancelledError:
            self._meter("cancelled_decode", 1)
            raise
        finally:
            self._meter("decode_seconds", time.monotonic() - start)

    @contextlib.asynccontextmanager
    async def _turn(self, is_text: bool) -> AsyncIterator[None]:
        """Be one of the few chunks that a tenant has in line, so that others wait for no more."""
        lane = (*current().flow, is_text)
        line = self._lines.setdefault(lane, asyncio.Semaphore(self._num_decoders))
        self._waiting[lane] += 1
        try:
            async with line:
                yield
        finally:
            self._waiting[lane] -= 1
            if not self._waiting[lane]:
                del self._waiting[lane], self._lines[lane]

    def close(self) -> None:
        """Begin nothing any more."""
        for executor in (self._tokenizer, self._decoders):
            executor.shutdown(wait=False, cancel_futures=True)
        self._openers.close()

    def _samples(self, inputs: Sequence[Input], processor: "TrimodalProcessor") -> list[Sample]:
        return [self._sample(item, processor) for item in inputs]

    def _sample(self, item: Input, processor: "TrimodalProcessor") -> Sample:
        try:
            media = {m: self._medium(m, item, processor) for m in item.media}
        except ServingError as error:
            raise error.at(item.where) from None
        except DataError as error:
            raise rejected(error, item.where) from None
        except Exception as error:
            raise internal(item.where) from error
        return Sample(item.where, media, 0)

    def _medium(self, modality: Modality, item: Input, processor: "TrimodalProcessor") -> Medium:
        source = item.media[modality]
        if isinstance(source, TokenIds):
            return processor.text.of_pieces(source.ids)
        if isinstance(source, str):
            return _text(source, item.keep, processor)
        data, config = source.decode(), processor.config
        if modality is Modality.VISION:
            opened = self._openers.picture(data, config.vision_input.max_pixels)
        else:
            opened = self._openers.recording(data, config.speech_input.max_seconds)
        medium = processor.medium(modality, opened)
        if not is_finite(medium.features):
            raise invalid(modality, "holds numbers too large to compute with")
        return medium


def is_finite(x: "Tensor") -> bool:
    """Whether every number is, by the extremes alone, which NaN is one of."""
    least, most = x.aminmax()
    return math.isfinite(float(least)) and math.isfinite(float(most))


def check_lengths(inputs: Sequence[Input], max_text_tokens: int) -> None:
    """Return if no text is so long that it cannot have few enough tokens.

    Raises:
        ServingError: one is.
    """
    limit = MAX_CHARACTERS * max_text_tokens
    for item in inputs:
        text = item.media.get(Modality.TEXT)
        if isinstance(text, str) and len(text) > limit and item.keep is None:
            message = f"text has {len(text)} characters, the limit is {limit}"
            raise ServingError(400, "context_length_exceeded", message, param=item.where)


def _is_text(item: Input) -> bool:
    return item.media.keys() == {Modality.TEXT}


def _is_short(item: Input) -> bool:
    text = item.media.get(Modality.TEXT)
    return _is_text(item) and isinstance(text, str) and len(text) <= SHORT


def _chunks(inputs: Sequence[Input]) -> Iterator[list[Input]]:
    for is_text, group in itertools.groupby(inputs, _is_text):
        items = list(group)
        size = CHUNK if is_text else 1
        for i in range(0, len(items), size):
            yield items[i : i + size]


def most_tokens(item: Input, architecture: ModelConfig) -> int:
    """Tokens that are computed for an input at most, as far as can be told before it is opened."""
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


def _text(text: str, keep: Keep | None, processor: "TrimodalProcessor") -> Medium:
    if keep is None:
        return processor.text.medium(text)
    most = MAX_CHARACTERS * processor.config.max_text_tokens  # what is beyond cannot remain
    return processor.text.medium(text[:most] if keep == "start" else text[-most:], keep)
