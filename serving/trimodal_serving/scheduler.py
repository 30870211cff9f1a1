"""Who is next: samples to embed, in fair turns and packed with what fits, or outputs to generate.

vector = await scheduler.submit(sample)
generation = await scheduler.generate(task)
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trimodal.assembly import embedding_cost
from trimodal.batch import Sample
from trimodal_serving.caller import PRICES, Flow, current
from trimodal_serving.composition import Composition, Kind, Task
from trimodal_serving.errors import ServingError, internal, is_internal
from trimodal_serving.generations import Generations, Told, deliver
from trimodal_serving.inputs import Input
from trimodal_serving.interludes import Interludes
from trimodal_serving.meter import Meter, unmeasured
from trimodal_serving.pace import Pace
from trimodal_serving.turns import Turns

if TYPE_CHECKING:
    from trimodal.models.generation import Generation

SLICE_SECONDS = 0.04
"""A batch takes about as long at most, while more than one tenant, priority or lane sends work; or
twice as long as the smallest, where that is more."""
LONGEST_SECONDS = 0.25
"""A batch takes about as long at most, so that whoever comes waits for no more. On a CPU it is far
beyond the size at which larger ones are any faster, and a GPU does a whole budget in that time."""
SPARE = 16
"""A batch of which no more than this part is empty is full; nobody who fits is looked for."""
REMEMBERED_SECONDS = 10.0
"""For which one counts as sending after its last sample."""

Results = Sequence[np.ndarray | ServingError]
Sender = tuple[Flow, str]
"""A tenant with a priority, and a lane of its."""
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Job:
    sample: Sample
    cost: int
    sender: Sender
    future: asyncio.Future[np.ndarray]
    since: float


class Scheduler:
    """Feeds one worker thread; everything but the computing happens on the event loop.

    No sample waits for others to come: while a batch is computed the next one gathers by itself.
    Priorities, then tenants, then modalities take turns; within one of these, the oldest is first.
    While there is both to embed and to generate, each gets half of the time: after a batch of
    samples come as many steps of generation as take the same time.

    A batch or step that takes long is no reason to wait for whoever is due before more of the same
    and sends little: that is computed between its blocks, if `interludes` watches the model.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Sample]], Results],
        executor: Executor,
        token_budget: int,
        observe: Callable[[int, float], None],
        compose: Callable[[Kind], Composition] | None = None,
        meter: Meter = unmeasured,
    ) -> None:
        """Start to work on the running event loop.

        Args:
            compute: run in the executor.
            executor: of one thread.
            token_budget: tokens of a batch.
            observe: told the tokens and the seconds of each batch.
            compose: makes a batch that generates one kind; None if nothing is generated.
            meter: told what is measured.
        """
        self._compute = compute
        self._executor = executor
        self._token_budget = token_budget
        self._observe = observe
        self._meter = meter
        self._jobs: Turns[_Job] = Turns(PRICES)
        self._running: list[_Job] = []
        self._busy: set[Sender] = set()
        """Of those."""
        self.interludes: Interludes[_Job] = Interludes(self._compute_between)
        self._between: set[_Job] = set()
        """Jobs that wait for an interlude, or are computed in one."""
        self._loop = asyncio.get_running_loop()
        self._seen: dict[Sender, float] = {}
        self._unanswered: Counter[Sender] = Counter()
        """Tokens of jobs that wait or are computed."""
        self._pace = Pace()
        self._fastest = 0.0
        """Seconds a token of the fastest batches; rises slowly, so that one that was held up by
        something else does not make those that follow small."""
        self._generations = compose and Generations(
            compose, executor, token_budget, observe, meter, self.interludes
        )
        self.canary: Sample | None = None
        """A sample that the model has computed once; while it still does, a batch of which nothing
        was computed says something of its samples, and nothing of the model."""
        self._failed_batches = 0
        """In a row, after each of which not even the canary was computed."""
        self._batch_since: float | None = None
        self._lead = 0.0
        """Seconds that embedding had more than generating since both had something to do."""
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def submit(self, sample: Sample) -> asyncio.Future[np.ndarray]:
        """The embedding (E,) of a sample; cancelling the future takes it out of the queue.

        Raises, when awaited:
            ServingError: the model failed on this sample, or the server stops.
        """
        future: asyncio.Future[np.ndarray] = self._loop.create_future()
        cost, flow = embedding_cost(sample), current().flow
        lane = "+".join(modality.data_name for modality in sorted(sample.media))
        sender = flow, lane
        self._seen[sender] = now = time.monotonic()
        job = _Job(sample, cost, sender, future, now)
        number = self._jobs.add((*flow, lane), job, cost)
        self._unanswered[sender] += cost
        future.add_done_callback(lambda done: self._left(number, job, done))
        self._arrived.set()
        # most often it is more of the same, or nothing long is computed
        if self.interludes.room and sender not in self._busy:
            self._interpose()
        return future

    def _interpose(self) -> None:
        """Have those who are due before more of what is running computed between its blocks.

        Many who send little each make batches together, which is faster than one by one: what is
        interrupted is a step of generation, or a batch of one who has more than that waiting.
        """
        room, busy, budget = self.interludes.room, self._busy, self._budget()
        if busy and not any(self._unanswered[sender] > budget for sender in busy):
            return
        chosen: dict[int, float] = {}
        for number, job in self._jobs.ordered():
            seconds = self._pace.seconds(job.cost) or room
            if job.sender in busy or seconds > room:
                break
            if self._unanswered[job.sender] <= budget and not job.future.done():
                room -= seconds
                chosen[number] = seconds
        jobs = self._jobs.take(list(chosen))
        self._between.update(jobs)
        for job, seconds in zip(jobs, chosen.values(), strict=True):
            self.interludes.add(job, seconds)

    def _compute_between(self, jobs: Sequence[_Job]) -> None:
        """In the thread of the model."""
        wanted = [job for job in jobs if not job.future.done()]
        start = time.monotonic()
        try:
            results = self._compute([job.sample for job in wanted]) if wanted else ()
        except Exception as error:
            results = [internal(cause=error) for _ in wanted]
        taken = time.monotonic() - start
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._after, jobs, wanted, results, start, taken)

    def _after(
        self,
        jobs: Sequence[_Job],
        wanted: Sequence[_Job],
        results: Results,
        start: float,
        seconds: float,
    ) -> None:
        """Deliver what was computed in an interlude."""
        self._between.difference_update(jobs)
        self.interludes.took(seconds)
        if wanted:
            self._measure(wanted, start, seconds)
        for job, result in zip(wanted, results, strict=True):
            deliver(job.future, result)

    def _left(self, number: int, job: _Job, future: asyncio.Future[np.ndarray]) -> None:
        self._jobs.drop(number)
        self._unanswered[job.sender] -= job.cost
        if not self._unanswered[job.sender]:
            del self._unanswered[job.sender]
        if future.cancelled():
            self._meter("cancelled_queue", 1)

    @property
    def batch_seconds(self) -> float:
        """How long the model has been at one batch or step."""
        return 0.0 if self._batch_since is None else time.monotonic() - self._batch_since

    def generate(self, task: Task, told: Told | None = None) -> "asyncio.Future[Generation]":
        """One generated output, see `Generations.submit`.

        Raises, when awaited:
            ServingError: the model failed on this task, or the server stops.
        """
        assert self._generations is not None  # noqa: S101 - the engine gives `compose`
        future = self._generations.submit(task, told)
        self._arrived.set()
        return future

    async def stop(self) -> None:
        """End; what waits or is being computed fails."""
        self._task.cancel()
        await asyncio.wait([self._task])
        futures = [job.future for job in [*self._running, *self._between, *self._jobs]]
        for future in [*futures, *(self._generations.unfinished() if self._generations else ())]:
            if not future.done():
                future.set_exception(
                    ServingError(503, "draining", "the server stops", retry_after=1)
                )

    def _next_batch(self) -> list[_Job]:
        """Whoever is next, so that none is overtaken for ever, and those behind who still fit.

        One who sends more than a batch holds takes turns with those who do not, and does not ride
        along in theirs: a batch that was filled up with it would take them as long as its own.
        """
        budget = self._budget()
        first = self.interludes.take()  # for which there was no interlude
        self._between.difference_update(first)
        first = [job for job in first if not job.future.done()]
        room = budget - sum(job.cost for job in first)
        crowds = {sender for sender, cost in self._unanswered.items() if cost > budget}
        chosen: list[int] = []
        for number, job in self._jobs.ordered():
            behind = bool(first or chosen)
            if job.future.done() or (behind and (job.cost > room or job.sender in crowds)):
                continue
            if not behind and job.sender in crowds:
                crowds.clear()
            chosen.append(number)
            room -= job.cost
            if room <= budget // SPARE:
                break
        return first + self._jobs.take(chosen)

    def _budget(self) -> int:
        """Tokens of the next batch: all that fit, or what keeps others from waiting for long."""
        past = time.monotonic() - REMEMBERED_SECONDS
        self._seen = {one: last for one, last in self._seen.items() if last >= past}
        sliced = self._pace.fitting(SLICE_SECONDS)
        if not self._fastest or sliced is None:
            return self._token_budget
        most = sliced if len(self._seen) > 1 else LONGEST_SECONDS / self._fastest
        return min(self._token_budget, max(1, int(most)))

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            generations = (
                self._generations if self._generations and self._generations.busy else None
            )
            embeds = bool(self._jobs or self.interludes)
            if not embeds and generations is None:
                self._arrived.clear()
                continue
            both = embeds and generations is not None
            self._lead = self._lead if both else 0.0
            self._batch_since = start = time.monotonic()
            if generations is None or (embeds and self._lead <= 0):
                failed = await self._embed()
                sign = 1
            else:
                failed = await generations.turn()
                sign = -1
            between = self.interludes.end()
            await self._note(failed)
            self._batch_since = None
            alone = time.monotonic() - start - between
            self._lead += sign * alone + between if both else 0.0

    async def _embed(self) -> bool:
        """Compute one batch of samples; whether the model failed on all of them."""
        self._running = batch = self._next_batch()
        if not batch:  # all were cancelled a moment ago; their callbacks take them out
            await asyncio.sleep(0)
            return False
        self._busy = {job.sender for job in batch}
        start = time.monotonic()
        self.interludes.begin(self._pace.seconds(sum(job.cost for job in batch)) or 0.0)
        results = await self._computed([job.sample for job in batch])
        self._measure(batch, start, time.monotonic() - start - self.interludes.end())
        for job, result in zip(batch, results, strict=True):
            deliver(job.future, result)
        self._running, self._busy = [], set()
        return all(map(is_internal, results))

    async def _computed(self, samples: Sequence[Sample]) -> Results:
        try:
            return await self._loop.run_in_executor(self._executor, self._compute, samples)
        except Exception as error:
            return [internal(cause=error) for _ in samples]

    async def _note(self, failed: bool) -> None:
        """Count a batch on all of which the model failed, unless it can do better."""
        if failed:
            canary = [] if self.canary is None else await self._computed([self.canary])
            failed = any(map(is_internal, canary))
        count = self._failed_batches + 1 if failed else 0
        if count != self._failed_batches:
            self._failed_batches = count
            self._meter("failed_batches", count)

    def _measure(self, batch: Sequence[_Job], start: float, seconds: float) -> None:
        tokens = sum(job.cost for job in batch)
        measured = seconds / max(1, tokens)
        self._pace.observe(tokens, seconds)
        slower = 0.98 * self._fastest + 0.02 * measured
        self._fastest = min(measured, slower) if self._fastest else measured
        self._observe(tokens, seconds)
        for job in batch:
            self._meter("queue_wait_seconds", start - job.since)
        self._meter("inference_seconds", seconds)
        self._meter("batch_items", len(batch))
        self._meter("batch_fill_ratio", tokens / self._token_budget)


async def in_order(
    futures: Sequence[asyncio.Future[T]], inputs: Sequence[Input] | None = None
) -> list[T]:
    """The results, or the error of the first that failed; then the others are given up."""
    results = []
    try:
        for i, future in enumerate(futures):
            try:
                results.append(await future)
            except ServingError as error:
                raise error.at(inputs[i].where) if inputs else error from error.__cause__
    finally:
        for future in futures:
            if not future.cancel() and not future.cancelled():
                future.exception()  # looked at, so that asyncio does not complain about it
    return results
