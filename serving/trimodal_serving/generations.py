"""Outputs that wait and batches that are generated, each a step at a time.

generation = await generations.submit(task)
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimodal.packing import first_fit
from trimodal_serving.composition import Composition, Results, Task
from trimodal_serving.errors import ServingError, internal

if TYPE_CHECKING:
    from trimodal.models.generation import Generation

MOST_BATCHES = 4
"""Batches that take turns; each holds the keys and values of a token budget at most."""
WINDOW = 4096
"""Oldest outputs among which a batch is chosen."""

Told = Callable[[Sequence[int]], None]


@dataclass(frozen=True)
class _Job:
    task: Task
    told: Told | None
    future: "asyncio.Future[Generation]"


@dataclass
class _Batch:
    jobs: Sequence[_Job]
    composition: Composition
    seconds: float = 0.0


class Generations:
    """One lane of the scheduler; everything but the computing happens on the event loop.

    Outputs of one kind that wait at the same time share a batch, and batches take turns, so a text
    does not wait for a picture. A batch nobody waits for any more is given up between two steps.
    """

    def __init__(
        self,
        compose: Callable[[Sequence[Task]], Composition],
        executor: Executor,
        token_budget: int,
        observe: Callable[[int, float], None],
    ) -> None:
        """Begin with nothing.

        Args:
            compose: makes the batch of some tasks.
            executor: of one thread.
            token_budget: tokens that a batch holds.
            observe: told the tokens and the seconds of each batch.
        """
        self._compose = compose
        self._executor = executor
        self._token_budget = token_budget
        self._observe = observe
        self._jobs: dict[int, _Job] = {}
        self._batches: deque[_Batch] = deque()
        self._numbers = itertools.count()

    @property
    def busy(self) -> bool:
        """Whether a turn has something to do."""
        return bool(self._jobs or self._batches)

    def submit(self, task: Task, told: Told | None = None) -> "asyncio.Future[Generation]":
        """The output of a task; cancelling the future gives it up.

        Args:
            task: what to generate.
            told: called with the ids of a text so far, each time that it grew; if a neighbour made
                the batch fail, they grow once more from the beginning.
        """
        number = next(self._numbers)
        future: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self._jobs[number] = _Job(task, told, future)
        future.add_done_callback(lambda _: self._jobs.pop(number, None))
        return future

    def unfinished(self) -> Iterator[asyncio.Future]:
        """Futures of all that waits or is being generated."""
        for job in [*self._jobs.values(), *(job for batch in self._batches for job in batch.jobs)]:
            yield job.future

    async def turn(self) -> None:
        """One step of one batch."""
        if len(self._batches) < MOST_BATCHES:
            self._start()
        if not self._batches:  # all were cancelled a moment ago; their callbacks take them out
            await asyncio.sleep(0)
            return
        batch = self._batches[0]
        if all(job.future.done() for job in batch.jobs):
            self._batches.popleft()
            return
        start = time.monotonic()
        outcome: Mapping[int, Sequence[int]] | Results | Exception
        try:
            loop = asyncio.get_running_loop()
            outcome = await loop.run_in_executor(self._executor, batch.composition.step)
        except Exception as error:
            outcome = error
        batch.seconds += time.monotonic() - start
        self._batches.popleft()
        if isinstance(outcome, Exception):
            self._split(batch, outcome)
        elif isinstance(outcome, list):
            self._observe(sum(job.task.cost for job in batch.jobs), batch.seconds)
            _deliver(batch.jobs, outcome)
        else:
            self._batches.append(batch)
            for i, ids in outcome.items():
                job = batch.jobs[i]
                if job.told is not None and not job.future.done():
                    job.told(ids)

    def _start(self) -> None:
        """A new batch of the oldest output and those of its kind that fit beside it."""
        alive = (item for item in self._jobs.items() if not item[1].future.done())
        waiting = list(itertools.islice(alive, WINDOW))
        if not waiting:
            return
        kind = waiting[0][1].task.kind
        alike = [(number, job) for number, job in waiting if job.task.kind == kind]
        chosen = first_fit([job.task.held for _, job in alike], self._token_budget)[0]
        self._begin([self._jobs.pop(alike[i][0]) for i in chosen])

    def _begin(self, jobs: Sequence[_Job]) -> None:
        self._batches.append(_Batch(jobs, self._compose([job.task for job in jobs])))

    def _split(self, batch: _Batch, error: Exception) -> None:
        """Try the halves of a batch that failed, until the output that fails is alone."""
        half = len(batch.jobs) // 2
        if half == 0:
            _deliver(batch.jobs, [internal(cause=error)])
        else:
            self._begin(batch.jobs[:half])
            self._begin(batch.jobs[half:])


def _deliver(jobs: Sequence[_Job], results: Results) -> None:
    for job, result in zip(jobs, results, strict=True):
        if job.future.done():
            continue
        if isinstance(result, ServingError):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
