"""Outputs that wait and batches that are generated, each a step at a time.

generation = await generations.submit(task)
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trimodal_serving.caller import PRICES, Flow, current
from trimodal_serving.composition import Composition, Outcome, Task, failure
from trimodal_serving.errors import ServingError
from trimodal_serving.turns import Turns

if TYPE_CHECKING:
    from trimodal.models.decoding import Decoding
    from trimodal.models.generation import Generation, Request

MOST_BATCHES = 4
"""Batches that take turns; each holds the keys and values of a token budget at most. A tenant that
has none may have one more."""

Told = Callable[[Sequence[int]], None]


@dataclass(eq=False)
class _Job:
    task: Task
    told: Told | None
    future: "asyncio.Future[Generation]"
    flow: Flow
    seconds: float = 0.0
    """Its share of the steps that it was in."""


@dataclass(eq=False)
class _Batch:
    kind: "tuple[Request, Decoding]"
    composition: Composition
    jobs: dict[int, _Job] = field(default_factory=dict)

    @property
    def held(self) -> int:
        return sum(job.task.held for job in self.jobs.values())

    @property
    def flows(self) -> set[Flow]:
        return {job.flow for job in self.jobs.values()}


class Generations:
    """One lane of the scheduler; everything but the computing happens on the event loop.

    An output joins the batch of its kind that runs, if there is room, or begins one; batches take
    turns, so a text does not wait for a picture. What nobody waits for any more leaves its batch
    between two steps.
    """

    def __init__(
        self,
        compose: Callable[["tuple[Request, Decoding]"], Composition],
        executor: Executor,
        token_budget: int,
        observe: Callable[[int, float], None],
    ) -> None:
        """Begin with nothing.

        Args:
            compose: makes the batch of a kind of tasks.
            executor: of one thread.
            token_budget: tokens that a batch holds.
            observe: told the tokens of each output, and its share of the seconds.
        """
        self._compose = compose
        self._executor = executor
        self._token_budget = token_budget
        self._observe = observe
        self._jobs: Turns[_Job] = Turns(PRICES)
        self._batches: deque[_Batch] = deque()
        self._numbers = itertools.count()
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
        running = (job for batch in self._batches for job in batch.jobs.values())
        for job in [*self._jobs, *running]:
            yield job.future

    async def turn(self) -> None:
        """One step of one batch."""
        self._place()
        if not self._batches:  # all were cancelled a moment ago; their callbacks take them out
            await asyncio.sleep(0)
            return
        batch = self._next()
        self._batches.remove(batch)
        left = [number for number, job in batch.jobs.items() if job.future.done()]
        batch.composition.drop(left)
        for number in left:
            del batch.jobs[number]
        if not batch.jobs:
            return
        self._batches.append(batch)
        start = time.monotonic()
        loop = asyncio.get_running_loop()
        outcome = await loop.run_in_executor(self._executor, batch.composition.step)
        self._charge(batch, time.monotonic() - start)
        self._take(batch, outcome)

    def _charge(self, batch: _Batch, seconds: float) -> None:
        """All that were in a step had an equal share of it."""
        share = seconds / len(batch.jobs)
        for job in batch.jobs.values():
            job.seconds += share
            self._spent[job.flow] += share * PRICES[job.flow[0]]

    def _take(self, batch: _Batch, outcome: Outcome) -> None:
        for number, ids in outcome.grown.items():
            job = batch.jobs[number]
            if job.told is not None and not job.future.done():
                job.told(ids)
        for number, result in outcome.done.items():
            job = batch.jobs.pop(number)
            self._observe(job.task.cost, job.seconds)
            _deliver(job, result)
        if outcome.failed:
            self._split([batch.jobs.pop(number) for number in outcome.failed], outcome.error)
        if not batch.jobs:
            self._batches.remove(batch)

    def _place(self) -> None:
        """Let those that wait join or begin batches, in their order, until one has to wait.

        Nobody overtakes whoever has to wait, so batches that others would join for ever come to
        their end, and there is room.
        """
        flows = {flow for batch in self._batches for flow in batch.flows}
        self._spent = {flow: spent for flow, spent in self._spent.items() if flow in flows}
        for number, job in list(self._jobs.waiting()):
            if job.future.done():
                continue
            batch = self._room(job)
            if batch is None and not self._may_begin(job.flow):
                return
            self._jobs.take([number])
            self._join(batch or self._begun(job.task.kind), [job])

    def _room(self, job: _Job) -> _Batch | None:
        for batch in self._batches:
            if batch.kind == job.task.kind and batch.held + job.task.held <= self._token_budget:
                return batch
        return None

    def _may_begin(self, flow: Flow) -> bool:
        most = MOST_BATCHES if flow in self._spent else 2 * MOST_BATCHES
        return len(self._batches) < most

    def _begun(self, kind: "tuple[Request, Decoding]") -> _Batch:
        batch = _Batch(kind, self._compose(kind))
        self._batches.append(batch)
        return batch

    def _join(self, batch: _Batch, jobs: Sequence[_Job]) -> None:
        joining = {next(self._numbers): job for job in jobs}
        batch.jobs.update(joining)
        batch.composition.add({number: job.task for number, job in joining.items()})
        for job in jobs:
            self._spent.setdefault(job.flow, min(self._spent.values(), default=0.0))

    def _next(self) -> _Batch:
        """The batch that waits longest, of those with an output whose flow had the least."""
        spent = [min(self._spent[flow] for flow in batch.flows) for batch in self._batches]
        return self._batches[spent.index(min(spent))]

    def _split(self, jobs: Sequence[_Job], error: Exception | None) -> None:
        """Try the halves of what failed once more, until the output that fails is alone."""
        half = len(jobs) // 2
        if half == 0:
            _deliver(jobs[0], failure(error))
            return
        for part in (jobs[:half], jobs[half:]):
            self._join(self._begun(part[0].task.kind), part)


def _deliver(job: _Job, result: "Generation | ServingError") -> None:
    if job.future.done():
        return
    if isinstance(result, ServingError):
        job.future.set_exception(result)
    else:
        job.future.set_result(result)
