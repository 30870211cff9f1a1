"""A service whose callers' media may lie elsewhere: they are fetched before it sees them.

service = Fetching(engine, fetcher)
"""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trimodal_serving.inputs import Input
from trimodal_serving.media import LinkedMedium
from trimodal_serving.service import Service

if TYPE_CHECKING:
    import numpy as np

    from trimodal.batch import Modality
    from trimodal.config import ModelConfig
    from trimodal_serving.codes import Codes
    from trimodal_serving.engine import Embedding
    from trimodal_serving.fetcher import Fetcher
    from trimodal_serving.fulfilment import Made
    from trimodal_serving.orders import Order


class Fetching:
    """A `Service` that has addresses fetched, or refuses them if there is no fetcher."""

    def __init__(self, service: Service, fetcher: "Fetcher | None") -> None:
        self._service = service
        self._fetcher = fetcher

    async def _filled(self, inputs: Sequence[Input]) -> Sequence[Input]:
        """The same inputs with files in the place of addresses.

        Raises:
            ServingError: nothing is fetched, or see `Fetcher.media`.
        """
        linked = [
            (i, modality, source)
            for i, item in enumerate(inputs)
            for modality, source in item.media.items()
            if isinstance(source, LinkedMedium)
        ]
        if not linked:
            return inputs
        if self._fetcher is None:
            raise linked[0][2].refusal().at(inputs[linked[0][0]].where)
        files = await self._fetcher.media([(inputs[i].where, source) for i, _, source in linked])
        filled = list(inputs)
        for (i, modality, _), file in zip(linked, files, strict=True):
            filled[i] = replace(filled[i], media={**filled[i].media, modality: file})
        return filled

    async def _ready(self, order: "Order") -> "Order":
        (item,) = await self._filled([order.item])
        return order if item is order.item else replace(order, item=item)

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
    def signature(self) -> "np.ndarray":
        """See `Service`."""
        return self._service.signature

    async def start(self) -> None:
        """See `Service`."""
        await self._service.start()

    def check(self) -> None:
        """See `Service`."""
        self._service.check()

    async def embed(self, inputs: Sequence[Input]) -> "list[Embedding]":
        """See `Service`."""
        return await self._service.embed(await self._filled(inputs))

    async def generate(self, order: "Order") -> "Made":
        """See `Service`."""
        return await self._service.generate(await self._ready(order))

    async def stream(self, order: "Order") -> "AsyncGenerator[str | np.ndarray | Made, None]":
        """See `Service`."""
        pieces = self._service.stream(await self._ready(order))
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def encode(self, item: Input) -> "Codes":
        """See `Service`."""
        (filled,) = await self._filled([item])
        return await self._service.encode(filled)

    async def decode(
        self, modality: "Modality", rows: Sequence[Sequence[int]]
    ) -> "str | np.ndarray":
        """See `Service`."""
        return await self._service.decode(modality, rows)

    async def close(self) -> None:
        """See `Service`."""
        await self._service.close()
