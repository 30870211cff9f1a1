"""Outputs that wait and batches that are generated, each a step at a time.

generation = await generations.submit(task)
"""

import asyncio
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from trimodal_serving.caller import PRICES, Flow, current
from trimodal_serving.composition import Composition, Kind, Outcome, Task, failure
from trimodal_serving.errors import ServingError, is_internal
from trimodal_serving.interludes import Interludes
from trimodal_serving.meter import Meter, unmeasured
from trimodal_serving.pace import Pace
from trimodal_serving.turns import Turns

if TYPE_CHECKING:
    from trimodal.models.decoding import Grown
    from trimodal.models.generation import Generation

MOST_BATCHES = 4
"""Batches that take turns; each holds the keys and values of a token budget at most. A tenant that
has none may have one more."""
LONGEST_STEP = 0.25
"""Seconds of a step of several outputs at most, about: whoever comes waits for it to end."""
FIRST_STEP = 128
"""Tokens of one while it isn't known how long they take."""
LONGEST_SHARED_STEP = 0.05
"""Seconds of one that tenants or priorities share, about. One that fills steps beyond it is on
its own, as others would wait as long for each of their tokens."""

T = TypeVar("T")
Told = Callable[["Grown"], None]


@dataclass(eq=False)
class _Job:
    task: Task
    told: Told | None
    future: "asyncio.Future[Generation]"
    flow: Flow
    since: float
    seconds: float = 0.0
    """Its share of the steps that it was in."""


@dataclass(eq=False)
class _Batch:
    kind: Kind
    composition: Composition
    jobs: dict[int, _Job] = field(default_factory=dict)
    is_open: bool = True
    """Whether others may join; not where an output that fails is looked for."""

    @property
    def held(self) -> int:
        return sum(job.task.held for job in self.jobs.values())

    @property
    def step(self) -> int:
        return sum(job.task.step for job in self.jobs.values())

    @property
    def flows(self) -> set[Flow]:
        return {job.flow for job in self.jobs.values()}


class Generations:
    """One lane of the scheduler; everything but the computing happens on the event loop.

    An output joins the batch of its kind that runs, if there is room and its steps are short, or
    begins one; batches take turns, so a text does not wait for a picture. What nobody waits for any
    more leaves its batch between two steps.
    """

    def __init__(
        self,
        compose: Callable[[Kind], Composition],
        executor: Executor,
        token_budget: int,
        observe: Callable[[int, float], None],
        meter: Meter = unmeasured,
        interludes: Interludes[Any] | None = None,
    ) -> None:
        """Begin with nothing.

        Args:
            compose: makes the batch of a kind of tasks.
            executor: of one thread.
            token_budget: tokens that a batch holds.
            observe: told the tokens of each output, and its share of the seconds.
            meter: told what is measured; a step counts as a batch.
            interludes: what is computed between the blocks of a step.
        """
        self._compose = compose
        self._executor = executor
        self._token_budget = token_budget
        self._observe = observe
        self._meter = meter
        self._interludes = interludes
        self._paces: defaultdict[Kind, Pace] = defaultdict(Pace)
        self._jobs: Turns[_Job] = Turns(PRICES)
        self._batches: deque[_Batch] = deque()
        self._numbers = itertools.count()
        self._spent: dict[Flow, float] = {}
        """Seconds of the flows that have batches, those that came later begin with the least."""
        self._done_cost, self._done_seconds = 0, 0.0
        """Of outputs that were not reported yet; one that ended early says little by itself."""

    @property
    def busy(self) -> bool:
        """Whether a turn has something to do."""
        return bool(self._jobs or self._batches)

    def submit(self, task: Task, told: Told | None = None) -> "asyncio.Future[Generation]":
        """The output of a task; cancelling the future gives it up.

        Args:
            task: what to generate.
            told: called with what there is after each step that changed it; if a neighbour made
                the batch fail, it begins once more.
        """
        future: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        flow = current().flow
        job = _Job(task, told, future, flow, time.monotonic())
        number = self._jobs.add(flow, job, task.cost)
        future.add_done_callback(lambda done: self._left(number, done))
        return future

    def _left(self, number: int, future: "asyncio.Future[Generation]") -> None:
        self._jobs.drop(number)
        if future.cancelled():
            self._meter("cancelled_generation", 1)

    def unfinished(self) -> Iterator[asyncio.Future]:
        """Futures of all that waits or is being generated."""
        running = (job for batch in self._batches for job in batch.jobs.values())
        for job in [*self._jobs, *running]:
            yield job.future

    async def turn(self) -> bool:
        """One step of one batch; whether the model failed on all that is in it."""
        self._leave()
        self._place()
        if not self._batches:  # all were cancelled a moment ago; their callbacks take them out
            await asyncio.sleep(0)
            return False
        batch, flow = self._next()
        self._batches.remove(batch)
        self._batches.append(batch)
        pace = self._paces[batch.kind]
        if self._interludes is not None:
            self._interludes.begin(pace.seconds(batch.step) or 0.0)
        start = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            outcome = await loop.run_in_executor(self._executor, batch.composition.step)
        except Exception as error:  # whatever it is, those that wait for others must not wait on
            outcome = Outcome(failed=list(batch.jobs), error=error)
        seconds = time.monotonic() - start
        seconds -= self._interludes.end() if self._interludes is not None else 0.0
        pace.observe(batch.step, seconds)
        # whoever shares the batch rides along: a step is for the one that was next
        self._spent[flow] += seconds * PRICES[flow[0]]
        for job in batch.jobs.values():
            job.seconds += seconds / len(batch.jobs)
        self._meter("inference_seconds", seconds)
        self._meter("batch_items", len(batch.jobs))
        failed = len(outcome.failed) == len(batch.jobs) and is_internal(failure(outcome.error))
        self._take(batch, outcome)
        return failed

    def _leave(self) -> None:
        """Drop what nobody waits for any more."""
        for batch in list(self._batches):
            left = [number for number, job in batch.jobs.items() if job.future.done()]
            batch.composition.drop(left)
            for number in left:
                del batch.jobs[number]
            if not batch.jobs:
                self._batches.remove(batch)

    def _take(self, batch: _Batch, outcome: Outcome) -> None:
        for number, grown in outcome.grown.items():
            job = batch.jobs[number]
            if job.told is not None and not job.future.done():
                job.told(grown)
        for number, result in outcome.done.items():
            job = batch.jobs.pop(number)
            self._done_cost += job.task.cost
            self._done_seconds += job.seconds
            deliver(job.future, result)
        if outcome.failed:
            self._split([batch.jobs.pop(number) for number in outcome.failed], outcome.error)
        if not batch.jobs:
            self._batches.remove(batch)
        if self._done_cost and (not batch.jobs or self._done_cost >= self._token_budget):
            self._observe(self._done_cost, self._done_seconds)
            self._done_cost, self._done_seconds = 0, 0.0

    def _place(self) -> None:
        """Let those that wait join or begin batches, in their order, until one has to wait.

        Nobody overtakes whoever has to wait, so batches that others would join for ever come to
        their end, and there is room; but a flow that has no batch may still begin one.
        """
        flows = {flow for batch in self._batches for flow in batch.flows}
        self._spent = {flow: spent for flow, spent in self._spent.items() if flow in flows}
        blocked = False
        for number, job in self._jobs.waiting():
            if job.future.done() or (blocked and job.flow in self._spent):
                continue
            batch = None if blocked else self._room(job)
            if batch is None and not self._may_begin(job.flow):
                blocked = True
                continue
            self._jobs.take([number])
            self._meter("queue_wait_seconds", time.monotonic() - job.since)
            self._join(batch or self._begun(job.task.kind), [job])

    def _room(self, job: _Job) -> _Batch | None:
        fitting = [
            batch
            for batch in self._batches
            if batch.is_open
            and batch.kind == job.task.kind
            and batch.held + job.task.held <= self._token_budget
        ]
        quick = [batch for batch in fitting if self._is_quick(batch, job)]
        # one who has something running can wait until some of it is done
        if not quick and (job.flow in self._spent or self._may_begin(job.flow)):
            return None
        return next(iter(quick or fitting), None)

    def _is_quick(self, batch: _Batch, job: _Job) -> bool:
        """Whether nobody waits long for a step with one more output."""
        step = batch.step + job.task.step
        seconds = self._paces[batch.kind].seconds(step)
        if seconds is None:
            return step <= FIRST_STEP
        longest = LONGEST_STEP if batch.flows == {job.flow} else LONGEST_SHARED_STEP
        return seconds <= longest

    def _may_begin(self, flow: Flow) -> bool:
        most = MOST_BATCHES if flow in self._spent else 2 * MOST_BATCHES
        return len(self._batches) < most

    def _begun(self, kind: Kind, *, is_open: bool = True) -> _Batch:
        batch = _Batch(kind, self._compose(kind), is_open=is_open)
        self._batches.append(batch)
        return batch

    def _join(self, batch: _Batch, jobs: Sequence[_Job]) -> None:
        joining = {next(self._numbers): job for job in jobs}
        batch.jobs.update(joining)
        batch.composition.add({number: job.task for number, job in joining.items()})
        for job in jobs:
            self._spent.setdefault(job.flow, min(self._spent.values(), default=0.0))

    def _next(self) -> tuple[_Batch, Flow]:
        """The batch that waits longest, of those with an output whose flow had the least."""
        least = min(self._spent[flow] for batch in self._batches for flow in batch.flows)
        return next(
            (batch, flow)
            for batch in self._batches
            for flow in batch.flows
            if self._spent[flow] == least
        )

    def _split(self, jobs: Sequence[_Job], error: Exception | None) -> None:
        """Try the halves of what failed once more, until the output that fails is alone."""
        half = len(jobs) // 2
        if half == 0:
            deliver(jobs[0].future, failure(error))
            return
        for part in (jobs[:half], jobs[half:]):
            self._join(self._begun(part[0].task.kind, is_open=False), part)


def deliver(future: asyncio.Future[T], result: T | ServingError) -> None:
    """Tell whoever waits for a result, if it still does."""
    if future.done():
        return
    if isinstance(result, ServingError):
        future.set_exception(result)
    else:
        future.set_result(result)
