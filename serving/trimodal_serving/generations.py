"""Outputs that wait and batches that are generated, each a step at a time.

generation = await generations.submit(task)
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimodal.packing import first_fit
from trimodal_serving.caller import PRICES, Flow, current
from trimodal_serving.composition import Composition, Results, Task
from trimodal_serving.errors import ServingError, internal
from trimodal_serving.turns import Turns

if TYPE_CHECKING:
    from trimodal.models.generation import Generation

MOST_BATCHES = 4
"""Batches that take turns; each holds the keys and values of a token budget at most. A tenant that
has none may have one more."""

Told = Callable[[Sequence[int]], None]


@dataclass(frozen=True)
class _Job:
    task: Task
    told: Told | None
    future: "asyncio.Future[Generation]"
    flow: Flow


@dataclass
class _Batch:
    jobs: Sequence[_Job]
    composition: Composition
    flow: Flow
    """Of the output that it was begun for."""
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
        self._jobs: Turns[_Job] = Turns(PRICES)
        self._batches: deque[_Batch] = deque()
        self._spent: dict[Flow, float] = {}
        """Seconds of the flows that have batches, those that came later begin with the least."""

    @property
    def busy(self) -> bool:
        """Whether a turn has something to do."""
        return bool(self._jobs or self._batches)

    def submit(self, task: Task, told: Told | None = None) -> "asyncio.Future[Generation]":
        """The output of a task; cancelling the future gives it up.

        Args:
            task: what to generate.
            told: called with the ids so far after each step that changed them; if a neighbour made
                the batch fail, it begins once more.
        """
        future: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        flow = current().flow
        number = self._jobs.add(flow, _Job(task, told, future, flow), task.cost)
        future.add_done_callback(lambda _: self._jobs.drop(number))
        return future

    def unfinished(self) -> Iterator[asyncio.Future]:
        """Futures of all that waits or is being generated."""
        for job in [*self._jobs, *(job for batch in self._batches for job in batch.jobs)]:
            yield job.future

    async def turn(self) -> None:
        """One step of one batch."""
        self._start()
        if not self._batches:  # all were cancelled a moment ago; their callbacks take them out
            await asyncio.sleep(0)
            return
        batch = self._next()
        if all(job.future.done() for job in batch.jobs):
            self._end(batch)
            return
        start = time.monotonic()
        outcome: Mapping[int, Sequence[int]] | Results | Exception
        try:
            loop = asyncio.get_running_loop()
            outcome = await loop.run_in_executor(self._executor, batch.composition.step)
        except Exception as error:
            outcome = error
        seconds = time.monotonic() - start
        batch.seconds += seconds
        self._spent[batch.flow] += seconds * PRICES[batch.flow[0]]
        self._end(batch)
        if isinstance(outcome, Exception):
            self._split(batch, outcome)
        elif isinstance(outcome, list):
            self._observe(sum(job.task.cost for job in batch.jobs), batch.seconds)
            _deliver(batch.jobs, outcome)
        else:
            self._add(batch)
            for i, ids in outcome.items():
                job = batch.jobs[i]
                if job.told is not None and not job.future.done():
                    job.told(ids)

    def _start(self) -> None:
        """A new batch of the output that is next and those of its kind that fit beside it."""
        busy = {batch.flow for batch in self._batches}
        self._spent = {flow: spent for flow, spent in self._spent.items() if flow in busy}
        if len(self._batches) >= 2 * MOST_BATCHES:
            return
        waiting = [item for item in self._jobs.waiting() if not item[1].future.done()]
        if len(self._batches) >= MOST_BATCHES:
            waiting = [item for item in waiting if item[1].flow not in self._spent]
        if not waiting:
            return
        kind = waiting[0][1].task.kind
        alike = [(number, job) for number, job in waiting if job.task.kind == kind]
        chosen = first_fit([job.task.held for _, job in alike], self._token_budget)[0]
        self._begin(self._jobs.take([alike[i][0] for i in chosen]))

    def _begin(self, jobs: Sequence[_Job]) -> None:
        composition = self._compose([job.task for job in jobs])
        self._add(_Batch(jobs, composition, jobs[0].flow))

    def _add(self, batch: _Batch) -> None:
        self._batches.append(batch)
        self._spent.setdefault(batch.flow, min(self._spent.values(), default=0.0))

    def _next(self) -> _Batch:
        """The batch that waits longest, of those whose flow had the least."""
        least = min(self._spent[batch.flow] for batch in self._batches)
        return next(batch for batch in self._batches if self._spent[batch.flow] == least)

    def _end(self, batch: _Batch) -> None:
        self._batches.remove(batch)

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
