"""Several processes with the same model, of which the least busy answers.

service = Replicas([setting, replace(setting, replica=1)], meter, 120.0, nursery)
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from trimodal_serving.backend import Setting
from trimodal_serving.meter import Meter
from trimodal_serving.nursery import LastingNursery
from trimodal_serving.remote import RemoteEngine
from trimodal_serving.service import all_started

if TYPE_CHECKING:
    import numpy as np

    from trimodal.batch import Modality
    from trimodal.config import ModelConfig
    from trimodal_serving.codes import Codes
    from trimodal_serving.engine import Embedding
    from trimodal_serving.fulfilment import Made
    from trimodal_serving.inputs import Input
    from trimodal_serving.orders import Order


class Replicas:
    """A `Service` that answers as long as one of its processes does.

    What is inside a process when it dies gets 503, as with one process: it may be what killed it,
    and would kill the next one too if it were handed on.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        meter: Meter,
        batch_seconds: float,
        nursery: LastingNursery,
    ) -> None:
        """Remember how; nothing happens before `start`.

        Args:
            settings: of each process.
            meter: told what is measured in all of them.
            batch_seconds: after which a batch that is not done hangs.
            nursery: which forks the processes; whoever made it closes it.
        """
        self.engines = [
            RemoteEngine(setting, meter, batch_seconds, nursery) for setting in settings
        ]

    @property
    def requests(self) -> int:
        """How many requests are inside."""
        return sum(engine.admission.requests for engine in self.engines)

    @property
    def tokens(self) -> int:
        """Tokens of all requests that are inside."""
        return sum(engine.admission.tokens for engine in self.engines)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """See `Service`."""
        return self.engines[0].dimensions

    @property
    def generates(self) -> tuple[str, ...]:
        """See `Service`."""
        return self.engines[0].generates

    @property
    def signature(self) -> "np.ndarray":
        """See `Service`."""
        return self.engines[0].signature

    @property
    def architecture(self) -> "ModelConfig":
        """See `Service`."""
        return self.engines[0].architecture

    async def start(self) -> None:
        """Start all processes; see `RemoteEngine.start` for what is raised."""
        await all_started(engine.start() for engine in self.engines)

    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return any(engine.is_ready() for engine in self.engines)

    def check(self) -> None:
        """Return if requests are answered, otherwise raise why not."""
        self._least_busy().check()

    def check_room(self) -> None:
        """Return if a request of the running task's caller would be let in, see `Admission`."""
        self._least_busy().admission.check()

    def _least_busy(self) -> RemoteEngine:
        ready = [engine for engine in self.engines if engine.is_ready()]
        return min(ready or self.engines, key=lambda engine: engine.admission.tokens)

    async def embed(self, inputs: "Sequence[Input]") -> "list[Embedding]":
        """See `Engine.embed`."""
        return await self._least_busy().embed(inputs)

    async def generate(self, order: "Order") -> "Made":
        """See `Engine.generate`."""
        return await self._least_busy().generate(order)

    def stream(self, order: "Order") -> "AsyncGenerator[str | np.ndarray | Made, None]":
        """See `Engine.stream`."""
        return self._least_busy().stream(order)

    async def encode(self, item: "Input") -> "Codes":
        """See `Codec.encode`."""
        return await self._least_busy().encode(item)

    async def decode(
        self, modality: "Modality", rows: "Sequence[Sequence[int]]"
    ) -> "str | np.ndarray":
        """See `Codec.decode`."""
        return await self._least_busy().decode(modality, rows)

    async def close(self) -> None:
        """Take nothing in any more, let what is inside finish for a while, then end all."""
        await asyncio.gather(*(engine.close() for engine in self.engines))
