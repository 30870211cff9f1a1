"""What the routes need of a model, wherever it runs.

embeddings = await service.embed(inputs)
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from trimodal.batch import Modality
    from trimodal.config import ModelConfig
    from trimodal_serving.codes import Codes
    from trimodal_serving.engine import Embedding
    from trimodal_serving.fulfilment import Made
    from trimodal_serving.inputs import Input
    from trimodal_serving.orders import Order


class Service(Protocol):
    """An `Engine`, in this process or in another."""

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The lengths at which an embedding may be cut, in rising order."""
        ...

    @property
    def generates(self) -> tuple[str, ...]:
        """What the model learnt to generate, see `Engine.generates`."""
        ...

    @property
    def signature(self) -> "np.ndarray":
        """(E,) float32: the vector of one medium of each kind, which tells models apart."""
        ...

    @property
    def architecture(self) -> "ModelConfig":
        """The sizes of the model."""
        ...

    async def start(self) -> None:
        """Load the model; requests are refused until this has returned."""
        ...

    def check(self) -> None:
        """Return if requests are answered, otherwise raise why not."""
        ...

    async def embed(self, inputs: "Sequence[Input]") -> "list[Embedding]":
        """Embed inputs, in their order."""
        ...

    async def generate(self, order: "Order") -> "Made":
        """Carry out an order."""
        ...

    def stream(self, order: "Order") -> "AsyncGenerator[str | np.ndarray | Made, None]":
        """The same for one output, piece by piece."""
        ...

    async def encode(self, item: "Input") -> "Codes":
        """The codes of the one medium of an input."""
        ...

    async def decode(
        self, modality: "Modality", rows: "Sequence[Sequence[int]]"
    ) -> "str | np.ndarray":
        """The medium of some codes: a text, a picture or samples."""
        ...

    async def close(self) -> None:
        """Take nothing in any more, let what is inside finish for a while, then stop."""
        ...


async def all_started(starts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for several starts; if one fails, the others are given up and its error is raised."""
    starting = [asyncio.create_task(start) for start in starts]
    try:
        await asyncio.gather(*starting)
    except BaseException:
        for task in starting:
            task.cancel()
        await asyncio.wait(starting)
        raise
