"""A service whose callers' usage is counted.

service = Metered(engine, metrics.of("demo"))
"""

import contextlib
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trimodal.batch import Modality
from trimodal_serving.caller import Usage, current
from trimodal_serving.fulfilment import Made
from trimodal_serving.meter import Meter
from trimodal_serving.service import Service

if TYPE_CHECKING:
    from trimodal.config import ModelConfig
    from trimodal_serving.codes import Codes
    from trimodal_serving.engine import Embedding
    from trimodal_serving.inputs import Input
    from trimodal_serving.orders import Order


class Metered:
    """A `Service` that writes into the running task's caller what it has used."""

    def __init__(self, service: Service, meter: Meter) -> None:
        self._service = service
        self._meter = meter

    @property
    def dimensions(self) -> tuple[int, ...]:
        """See `Service`."""
        return self._service.dimensions

    @property
    def generates(self) -> tuple[str, ...]:
        """See `Service`."""
        return self._service.generates

    @property
    def architecture(self) -> "ModelConfig":
        """See `Service`."""
        return self._service.architecture

    @property
    def signature(self) -> np.ndarray:
        """See `Service`."""
        return self._service.signature

    async def start(self) -> None:
        """See `Service`."""
        await self._service.start()

    def check(self) -> None:
        """See `Service`."""
        self._service.check()

    async def embed(self, inputs: "Sequence[Input]") -> "list[Embedding]":
        """See `Service`."""
        embeddings = await self._service.embed(inputs)
        for one in embeddings:
            current().usage.add(read(one.tokens, self.architecture))
        return embeddings

    async def generate(self, order: "Order") -> Made:
        """See `Service`."""
        made = await self._service.generate(order)
        current().usage.add(used(made, self.architecture))
        return made

    async def stream(self, order: "Order") -> AsyncGenerator[str | np.ndarray | Made, None]:
        """See `Service`."""
        start, first = time.monotonic(), True
        caller = current()
        async with contextlib.aclosing(self._service.stream(order)) as pieces:
            async for piece in pieces:
                if first and order.to is Modality.TEXT:
                    self._meter("time_to_first_token_seconds", time.monotonic() - start)
                    first = False
                if isinstance(piece, Made):
                    caller.usage.add(used(piece, self.architecture))
                yield piece

    async def encode(self, item: "Input") -> "Codes":
        """See `Service`."""
        codes = await self._service.encode(item)
        (modality,) = item.media
        current().usage.add(read({modality: codes.tokens}, self.architecture))
        return codes

    async def decode(self, modality: Modality, rows: Sequence[Sequence[int]]) -> "str | np.ndarray":
        """See `Service`."""
        made = await self._service.decode(modality, rows)
        usage = _drawn([made], self.architecture.speech_input.sample_rate)
        usage.tokens = sum(map(len, rows))
        current().usage.add(usage)
        return made

    async def close(self) -> None:
        """See `Service`."""
        await self._service.close()


def read(tokens: Mapping[Modality, int], architecture: "ModelConfig") -> Usage:
    """What media of some tokens are; pixels and seconds as the model sees them."""
    vision, speech = architecture.vision_input, architecture.speech_input
    return Usage(
        sum(tokens.values()),
        tokens.get(Modality.VISION, 0) * vision.patch_size**2,
        tokens.get(Modality.SPEECH, 0) * speech.stride * speech.hop_ms / 1000,
    )


def used(made: "Made", architecture: "ModelConfig") -> Usage:
    """What was read and made for an order."""
    usage = read(made.tokens, architecture)
    usage.tokens += made.new_tokens
    usage.add(_drawn(made.outputs, made.sample_rate))
    return usage


def _drawn(outputs: "Sequence[str | np.ndarray]", sample_rate: int) -> Usage:
    """The pixels and the seconds of pictures and speech."""
    usage = Usage()
    for output in outputs:
        if isinstance(output, np.ndarray) and output.ndim == 3:
            usage.pixels += output.shape[0] * output.shape[1]
        elif isinstance(output, np.ndarray):
            usage.audio_seconds += len(output) / sample_rate
    return usage
