"""Waiting samples, taken oldest first and packed with whatever fits beside them.

vector = await scheduler.submit(sample)
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from trimodal.assembly import embedding_cost
from trimodal.batch import Sample
from trimodal.packing import first_fit
from trimodal_serving.errors import ServingError, internal

WINDOW = 4096
"""Oldest samples among which a batch is chosen, so that choosing never holds up the event loop."""

Results = Sequence[np.ndarray | ServingError]


@dataclass(frozen=True)
class _Job:
    sample: Sample
    cost: int
    future: asyncio.Future[np.ndarray]


class Scheduler:
    """Feeds one worker thread; everything but the computing happens on the event loop.

    No sample waits for others to come: while a batch is computed the next one gathers by itself.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Sample]], Results],
        executor: Executor,
        token_budget: int,
        observe: Callable[[int, float], None],
    ) -> None:
        """Start to work on the running event loop.

        Args:
            compute: run in the executor.
            executor: of one thread.
            token_budget: tokens of a batch.
            observe: told the tokens and the seconds of each batch.
        """
        self._compute = compute
        self._executor = executor
        self._token_budget = token_budget
        self._observe = observe
        self._jobs: dict[int, _Job] = {}
        self._running: list[_Job] = []
        self._numbers = itertools.count()
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def submit(self, sample: Sample) -> asyncio.Future[np.ndarray]:
        """The embedding (E,) of a sample; cancelling the future takes it out of the queue.

        Raises, when awaited:
            ServingError: the model failed on this sample, or the server stops.
        """
        number = next(self._numbers)
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._jobs[number] = _Job(sample, embedding_cost(sample), future)
        future.add_done_callback(lambda _: self._jobs.pop(number, None))
        self._arrived.set()
        return future

    async def stop(self) -> None:
        """End; what waits or is being computed fails."""
        self._task.cancel()
        await asyncio.wait([self._task])
        for job in [*self._running, *self._jobs.values()]:
            if not job.future.done():
                job.future.set_exception(
                    ServingError(503, "draining", "the server stops", retry_after=1)
                )

    def _next_batch(self) -> list[_Job]:
        alive = (item for item in self._jobs.items() if not item[1].future.done())
        waiting = list(itertools.islice(alive, WINDOW))
        if not waiting:
            return []
        # the first bin holds the oldest sample, so none is overtaken for ever
        chosen = first_fit([job.cost for _, job in waiting], self._token_budget)[0]
        return [self._jobs.pop(waiting[i][0]) for i in chosen]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            self._running = batch = self._next_batch()
            if not batch:
                self._arrived.clear()
                continue
            start = time.monotonic()
            try:
                samples = [job.sample for job in batch]
                results = await loop.run_in_executor(self._executor, self._compute, samples)
            except Exception as error:
                results = [internal(cause=error) for _ in batch]
            self._observe(sum(job.cost for job in batch), time.monotonic() - start)
            _deliver(batch, results)
            self._running = []


def _deliver(batch: Sequence[_Job], results: Results) -> None:
    for job, result in zip(batch, results, strict=True):
        if job.future.done():
            continue
        if isinstance(result, ServingError):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
