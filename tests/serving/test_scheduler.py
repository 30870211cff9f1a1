import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trimodal.batch import Modality, Sample
from trimodal.errors import NumericError
from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding, Grown
from trimodal.models.generation import Request
from trimodal.testing import assert_close
from trimodal_serving import scheduler as module
from trimodal_serving import turns
from trimodal_serving.caller import Caller, acting
from trimodal_serving.composition import Outcome, Task
from trimodal_serving.errors import ServingError
from trimodal_serving.scheduler import Results, Scheduler
from trimodal_serving.worker import Worker

MakeSample = Callable[[str], Sample]
Compute = Callable[[Sequence[Sample]], Results]


@asynccontextmanager
async def scheduling(compute: Compute, budget: int) -> AsyncIterator[Scheduler]:
    with ThreadPoolExecutor(1) as executor:
        scheduler = Scheduler(compute, executor, budget, lambda *_: None)
        try:
            yield scheduler
        finally:
            await scheduler.stop()


async def entered(scripted: Any) -> None:
    """Wait until a batch has reached the model."""
    assert await asyncio.to_thread(scripted.entered.wait, 20)
    scripted.entered.clear()


def test_what_gathers_behind_a_batch_is_packed_oldest_first(
    scripted: Any, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 3600.0)
    long, short = "the square is red", "red"
    budget = text_sample(long).num_tokens + text_sample(short).num_tokens
    order = [long, long, short, short]

    async def main() -> list[np.ndarray]:
        async with scheduling(Worker(scripted, budget), budget) as scheduler:
            scripted.gate.clear()
            first = scheduler.submit(text_sample("blue"))
            await entered(scripted)
            others = [scheduler.submit(text_sample(text)) for text in order]
            scripted.gate.set()
            return await asyncio.gather(first, *others)

    vectors = asyncio.run(main())
    assert scripted.batches == [["blue"], [long, short], [long, short]]
    expected = scripted.embed_samples([text_sample(text) for text in ["blue", *order]])["fused"]
    assert_close(np.stack(vectors), expected, "served-vs-offline")


def test_a_batch_is_no_longer_than_others_should_wait(
    scripted: Any, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 0.0)

    async def main() -> None:
        async with scheduling(Worker(scripted, 16_384), 16_384) as scheduler:
            await asyncio.gather(*(scheduler.submit(text_sample(t)) for t in ("red", "blue")))
            await asyncio.gather(*(scheduler.submit(text_sample(t)) for t in ("red", "blue")))

    asyncio.run(main())
    # how fast the model is was not known before the first
    assert scripted.batches == [["red", "blue"], ["red"], ["blue"]]


def test_modalities_that_both_come_take_short_turns(
    scripted: Any, text_sample: MakeSample, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 3600.0)
    monkeypatch.setattr(module.Pace, "fitting", lambda *_: 0.0)
    picture = Sample("p", {Modality.VISION: scripted.processor.medium(Modality.VISION, png)}, 0)

    async def main() -> None:
        async with scheduling(Worker(scripted, 16_384), 16_384) as scheduler:
            scripted.gate.clear()
            futures = [scheduler.submit(picture)]
            await entered(scripted)
            futures += [scheduler.submit(picture) for _ in range(3)]
            futures += [scheduler.submit(text_sample("red"))]
            scripted.gate.set()
            await asyncio.gather(*futures)

    asyncio.run(main())
    assert {len(batch) for batch in scripted.batches} == {1}
    assert ["red"] in scripted.batches[:3]


def test_a_sample_above_the_budget_is_computed_alone(
    scripted: Any, text_sample: MakeSample
) -> None:
    async def main() -> None:
        async with scheduling(Worker(scripted, 1), 1) as scheduler:
            await asyncio.gather(*(scheduler.submit(text_sample(t)) for t in ("red", "blue")))

    asyncio.run(main())
    assert scripted.batches == [["red"], ["blue"]]


def test_cancelled_samples_never_reach_the_model(scripted: Any, text_sample: MakeSample) -> None:
    async def main() -> None:
        async with scheduling(Worker(scripted, 16_384), 16_384) as scheduler:
            scripted.gate.clear()
            running = scheduler.submit(text_sample("red"))
            await entered(scripted)
            dropped, kept = (
                scheduler.submit(text_sample("blue")),
                scheduler.submit(text_sample("white")),
            )
            dropped.cancel()
            running.cancel()
            scripted.gate.set()
            await kept

    asyncio.run(main())
    assert scripted.batches == [["red"], ["white"]]


def test_more_cancelled_samples_than_the_window_holds_do_not_stall(
    scripted: Any, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "WINDOW", 2)

    async def main() -> None:
        async with scheduling(Worker(scripted, 16_384), 16_384) as scheduler:
            futures = [scheduler.submit(text_sample(str(i))) for i in range(8)]
            for future in futures[:7]:
                future.cancel()
            await futures[7]

    asyncio.run(main())
    assert scripted.batches == [["7"]]


def test_a_failing_sample_fails_alone(scripted: Any, text_sample: MakeSample) -> None:
    scripted.raises = lambda sample: sample.id == "blue"

    async def main() -> list[Any]:
        async with scheduling(Worker(scripted, 16_384), 16_384) as scheduler:
            futures = [scheduler.submit(text_sample(t)) for t in ("red", "blue", "white")]
            return await asyncio.gather(*futures, return_exceptions=True)

    results = asyncio.run(main())
    assert [isinstance(result, ServingError) for result in results] == [False, True, False]


def test_a_failure_of_the_worker_itself_is_survived(
    model: TrimodalModel, text_sample: MakeSample
) -> None:
    failing = [True]

    def compute(samples: Sequence[Sample]) -> Results:
        if failing.pop() if failing else False:
            raise MemoryError
        return Worker(model, 16_384)(samples)

    async def main() -> np.ndarray:
        async with scheduling(compute, 16_384) as scheduler:
            with pytest.raises(ServingError, match="the server failed"):
                await scheduler.submit(text_sample("red"))
            return await scheduler.submit(text_sample("red"))

    assert asyncio.run(main()).shape == (model.architecture.embedding_dim,)


class Sick:
    """A model that can be made to fail on all samples but a few; notes what is said of it."""

    def __init__(self) -> None:
        self.computes: Callable[[Sample], bool] = lambda _: False
        self.error: Exception = ServingError(500, "internal", "sick")
        self.said: list[tuple[str, float]] = []

    def compute(self, samples: Sequence[Sample]) -> Results:
        if isinstance(self.error, MemoryError):
            raise self.error
        return [np.zeros(1) if self.computes(one) else self._failure() for one in samples]

    def _failure(self) -> ServingError:
        assert isinstance(self.error, ServingError)
        return self.error

    async def asked(self, scheduler: Scheduler, *samples: Sample) -> list[float]:
        """What is said of failed batches after these were asked for in one."""
        futures = [scheduler.submit(sample) for sample in samples]
        await asyncio.gather(*futures, return_exceptions=True)
        await asyncio.sleep(0.05)
        return [value for name, value in self.said if name == "failed_batches"]


@asynccontextmanager
async def ailing(canary: Sample | None) -> AsyncIterator[tuple[Sick, Scheduler]]:
    sick = Sick()
    with ThreadPoolExecutor(1) as executor:
        meter: Any = lambda *pair: sick.said.append(pair)  # noqa: E731
        scheduler = Scheduler(sick.compute, executor, 16_384, lambda *_: None, None, meter)
        scheduler.canary = canary
        try:
            yield sick, scheduler
        finally:
            await scheduler.stop()


def test_batches_on_all_of_which_the_model_fails_are_counted(text_sample: MakeSample) -> None:
    red, blue, canary = map(text_sample, ("red", "blue", "canary"))

    async def main() -> None:
        async with ailing(canary) as (sick, scheduler):
            assert await sick.asked(scheduler, red, blue) == [1]
            sick.error = MemoryError()
            assert await sick.asked(scheduler, red) == [1, 2]
            sick.error = ServingError(500, "internal", "sick")
            assert await sick.asked(scheduler, red) == [1, 2, 3]
            sick.computes = lambda sample: sample is blue
            assert await sick.asked(scheduler, red, blue) == [1, 2, 3, 0], "blue was computed"

    asyncio.run(main())


def test_samples_that_make_the_model_fail_say_nothing_of_it(text_sample: MakeSample) -> None:
    red, canary = map(text_sample, ("red", "canary"))

    async def main() -> None:
        async with ailing(canary) as (sick, scheduler):
            sick.computes = lambda sample: sample is canary
            assert await sick.asked(scheduler, red) == []
            sick.computes = lambda _: False
            sick.error = ServingError(400, "invalid_image", "no picture")
            assert await sick.asked(scheduler, red) == []
            sick.error = ServingError(500, "nonfinite_output", "no vector")
            assert await sick.asked(scheduler, red) == []
            sick.error = ServingError(500, "internal", "sick")
            assert await sick.asked(scheduler, red) == [1]
        async with ailing(None) as (sick, scheduler):
            assert await sick.asked(scheduler, red) == []

    asyncio.run(main())


def test_outputs_on_which_the_model_fails_are_counted_too(text_sample: MakeSample) -> None:
    sick, sample = Sick(), text_sample("red")
    task = Task(sample, None, Request(to=Modality.TEXT), Decoding(), 0, room=1)
    outcomes = [
        Outcome(failed=[0], error=RuntimeError()),
        Outcome(failed=[1], error=NumericError()),
    ]

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            composition = SimpleNamespace(step=lambda: outcomes.pop(0), add=print, drop=print)
            compose: Any = lambda _: composition  # noqa: E731
            meter: Any = lambda *pair: sick.said.append(pair)  # noqa: E731
            scheduler = Scheduler(sick.compute, executor, 1, lambda *_: None, compose, meter)
            scheduler.canary = sample
            for _ in range(2):
                await asyncio.gather(scheduler.generate(task), return_exceptions=True)
                await asyncio.sleep(0.05)
            await scheduler.stop()

    asyncio.run(main())
    assert [value for name, value in sick.said if name == "failed_batches"] == [1, 0]


def test_stopping_fails_what_waits_and_what_runs(scripted: Any, text_sample: MakeSample) -> None:
    async def main() -> list[Any]:
        async with scheduling(Worker(scripted, 16_384), 16_384) as scheduler:
            scripted.gate.clear()
            running = scheduler.submit(text_sample("red"))
            await entered(scripted)
            waiting = scheduler.submit(text_sample("blue"))
            await scheduler.stop()
            scripted.gate.set()
            return [*await asyncio.gather(running, waiting, return_exceptions=True)]

    results = asyncio.run(main())
    assert [result.code for result in results] == ["draining", "draining"]


def test_several_modalities_cost_the_trunk_as_well(
    model: TrimodalModel, png: bytes, text_sample: MakeSample
) -> None:
    assert model.processor is not None
    (both,) = model.processor(image=[png], text=["red"])
    red = text_sample("red")
    observed: list[int] = []

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            worker = Worker(model, 1)
            scheduler = Scheduler(worker, executor, 1, lambda cost, _: observed.append(cost))
            await asyncio.gather(scheduler.submit(both), scheduler.submit(red))
            await scheduler.stop()

    asyncio.run(main())
    # twice, and a summary of each in the trunk
    assert observed == [2 * both.num_tokens + 2, red.num_tokens]


class Clock:
    """Embedding takes three seconds a batch, generating one second a step, of which there are six.

    What is computed is written down.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.turns = ""
        self.left = 6
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def embed(self, samples: Sequence[Sample]) -> Results:
        self.now += 3
        self.turns += "e"
        return [np.zeros(1)] * len(samples)

    def step(self) -> Any:
        self.now += 1
        self.turns += "g"
        self.left -= 1
        made: Any = "made"
        return Outcome(done={} if self.left else {0: made})

    def add(self, tasks: Any) -> None:
        assert list(tasks) == [0]

    def drop(self, numbers: Any) -> None:
        assert list(numbers) == []


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [(0, "gggggg"), (1, "egggggg"), (4, "egggegggee"), (9, "egggegggeeeeeee")],
)
def test_embedding_and_generating_get_half_of_the_time_each(
    text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch, waiting: int, expected: str
) -> None:
    clock = Clock(monkeypatch)
    sample = text_sample("red")
    task = Task(sample, None, Request(to=Modality.TEXT), Decoding(), 0, room=1)

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            compose: Any = lambda _: clock  # noqa: E731
            scheduler = Scheduler(clock.embed, executor, 1, lambda *_: None, compose)
            futures = [scheduler.submit(sample) for _ in range(waiting)]
            await asyncio.gather(scheduler.generate(task), *futures)
            await scheduler.stop()

    asyncio.run(main())
    assert clock.turns == expected


def test_stopping_fails_what_is_generated(text_sample: MakeSample) -> None:
    task = Task(text_sample("red"), None, Request(to=Modality.TEXT), Decoding(), 0, room=1)

    async def main() -> list[Any]:
        with ThreadPoolExecutor(1) as executor:
            begun = asyncio.Event()
            endless: Any = SimpleNamespace(
                step=lambda: Outcome({0: Grown([1], 1)}), add=print, drop=print
            )
            scheduler = Scheduler(lambda _: [], executor, 1, lambda *_: None, lambda _: endless)
            running = scheduler.generate(task, lambda _: begun.set())
            await begun.wait()
            waiting = scheduler.generate(task)
            await scheduler.stop()
            return [*await asyncio.gather(running, waiting, return_exceptions=True)]

    assert [result.code for result in asyncio.run(main())] == ["draining", "draining"]


def test_a_tenant_waits_for_one_short_batch_of_another(
    scripted: Any, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module.Pace, "fitting", lambda *_: 0.0
    )  # batches of one, once there are two

    async def main() -> None:
        async with scheduling(Worker(scripted, 16_384), 16_384) as scheduler:
            scripted.gate.clear()
            with acting(Caller("noisy")):
                noise = [scheduler.submit(text_sample("red"))]
                await entered(scripted)
                noise += [scheduler.submit(text_sample(f"{i}")) for i in range(100)]
            with acting(Caller("quiet")):
                quiet = scheduler.submit(text_sample("quiet"))
            with acting(Caller("quiet", priority="bulk")):
                bulk = scheduler.submit(text_sample("bulk"))
            scripted.gate.set()
            await asyncio.gather(*noise, quiet, bulk)

    asyncio.run(main())
    order = [sample for batch in scripted.batches for sample in batch]
    assert {len(batch) for batch in scripted.batches} == {1}
    assert order.index("quiet") <= 2
    assert order.index("bulk") <= 20


def test_who_sends_more_than_a_batch_does_not_ride_along(
    scripted: Any, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_SECONDS", 3600.0)
    monkeypatch.setattr(module, "LONGEST_SECONDS", 3600.0)
    budget = 8 * text_sample("red").num_tokens

    async def main() -> None:
        async with scheduling(Worker(scripted, budget), budget) as scheduler:
            scripted.gate.clear()
            with acting(Caller("noisy")):
                noise = [scheduler.submit(text_sample("red"))]
                await entered(scripted)
                noise += [scheduler.submit(text_sample("red")) for _ in range(20)]
            with acting(Caller("quiet")):
                quiet = scheduler.submit(text_sample("blue"))
            with acting(Caller("other")):
                other = scheduler.submit(text_sample("green"))
            scripted.gate.set()
            await asyncio.gather(*noise, quiet, other)
            await asyncio.sleep(0)
            assert not scheduler._unanswered

    asyncio.run(main())
    light = next(batch for batch in scripted.batches if "blue" in batch)
    assert sorted(light) == ["blue", "green"]
    assert scripted.batches.index(light) <= 2
    assert sum(batch == ["red"] * 8 for batch in scripted.batches) >= 1


def test_small_batches_do_not_make_large_ones_small(
    text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One takes 10 ms and 0.1 ms a token; a crowd sends beside one who sends a text at a time."""
    small = text_sample("red").num_tokens
    monkeypatch.setattr(module, "LONGEST_SECONDS", 3600.0)
    monkeypatch.setattr(module, "SLICE_SECONDS", 0.01 + 1e-4 * 100 * small)
    sizes: dict[str, list[int]] = {"red": [], "blue": []}

    def compute(samples: Sequence[Sample]) -> Results:
        time.sleep(0.01 + 1e-4 * sum(sample.num_tokens for sample in samples))
        sizes[samples[0].id].append(len(samples))
        return [np.ones(2, np.float32)] * len(samples)

    async def main() -> None:
        async with scheduling(compute, 200 * small) as scheduler:
            crowd = [scheduler.submit(text_sample("red")) for _ in range(1500)]
            with acting(Caller("quiet")):
                while not crowd[-1].done():
                    await scheduler.submit(text_sample("blue"))
            await asyncio.gather(*crowd)

    asyncio.run(main())
    assert np.median(sizes["blue"]) == 1
    # about 90, once the first, of all that fit, are over; four by the mean time of a token
    assert np.median(sizes["red"][2:]) > 30, sizes["red"]
