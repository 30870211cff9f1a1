"""What is small and of somebody else is computed between the blocks of a long batch."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from trimodal.assembly import embedding_cost
from trimodal.batch import Sample
from trimodal.models import TrimodalModel
from trimodal.models.layers import Block
from trimodal.testing import assert_close
from trimodal_serving import interludes
from trimodal_serving.caller import Caller, acting
from trimodal_serving.errors import ServingError
from trimodal_serving.interludes import Interludes
from trimodal_serving.scheduler import Scheduler
from trimodal_serving.worker import Worker

MakeSample = Callable[[str], Sample]


class Halfway:
    """Holds a forward pass up before the first block that it comes to."""

    def __init__(self, model: TrimodalModel) -> None:
        blocks = [one for one in model.modules() if isinstance(one, Block)]
        self._hooks = [block.register_forward_pre_hook(self._wait) for block in blocks]
        self.reached, self.go_on = threading.Event(), threading.Event()

    def _wait(self, *_: Any) -> None:
        self.reached.set()
        self.go_on.wait(20)

    def remove(self) -> None:
        self.go_on.set()
        for hook in self._hooks:
            hook.remove()


LONG = "the square is red"
"""More than a batch holds."""


@pytest.fixture
def halfway(
    model: TrimodalModel, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Halfway]:
    """The first text that is embedded stops half-way; every batch counts as a long one."""
    budget = embedding_cost(text_sample(LONG)) - 1
    monkeypatch.setattr(Scheduler, "_budget", lambda _: budget)
    monkeypatch.setattr(interludes, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(interludes, "SHARE", 100.0)
    held = Halfway(model)
    yield held
    held.remove()


@asynccontextmanager
async def scheduling(model: Any) -> AsyncIterator[Scheduler]:
    with ThreadPoolExecutor(1) as executor:
        scheduler = Scheduler(Worker(model, 16_384), executor, 16_384, lambda *_: None)
        scheduler.interludes.watch(model)
        scheduler._pace.observe(8, 0.01)
        try:
            yield scheduler
        finally:
            await scheduler.stop()
            scheduler.interludes.close()


def submit(scheduler: Scheduler, tenant: str, sample: Sample) -> asyncio.Future[np.ndarray]:
    with acting(Caller(tenant)):
        return scheduler.submit(sample)


async def reached(halfway: Halfway) -> None:
    assert await asyncio.to_thread(halfway.reached.wait, 20)


def together(
    model: Any, halfway: Halfway, running: Sample, others: Sequence[tuple[str, Sample]]
) -> tuple[list[int], list[Any]]:
    """The order in which a batch of `a` and those that came meanwhile ended, and the results."""
    ended: list[int] = []

    async def main() -> list[Any]:
        async with scheduling(model) as scheduler:
            futures = [submit(scheduler, "a", running)]
            await reached(halfway)
            futures += [submit(scheduler, *other) for other in others]
            for i, future in enumerate(futures):
                future.add_done_callback(lambda _, i=i: ended.append(i))
            halfway.go_on.set()
            return await asyncio.gather(*futures, return_exceptions=True)

    results = asyncio.run(main())
    return ended, results


def test_another_tenant_does_not_wait_for_the_end_of_a_batch(
    scripted: Any, halfway: Halfway, text_sample: MakeSample
) -> None:
    samples = [text_sample(text) for text in (LONG, "red", "blue")]
    others = [("b", samples[1]), ("c", samples[2])]
    ended, results = together(scripted, halfway, samples[0], others)
    assert ended == [1, 2, 0]
    assert scripted.batches == [[LONG], ["red", "blue"]]
    alone = [scripted.embed_samples([sample])["fused"][0] for sample in samples]
    assert_close(np.stack(results), np.stack(alone), "served-vs-offline")


def test_more_of_the_same_waits(scripted: Any, halfway: Halfway, text_sample: MakeSample) -> None:
    others = [("a", text_sample("red")), ("a", text_sample("blue"))]
    ended, _ = together(scripted, halfway, text_sample(LONG), others)
    assert ended == [0, 1, 2]
    assert scripted.batches == [[LONG], ["red", "blue"]]


def test_one_who_sends_more_than_a_batch_holds_waits(
    scripted: Any, halfway: Halfway, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scheduler, "_budget", lambda _: embedding_cost(text_sample("red")))
    others = [("b", text_sample(text)) for text in ("red", "blue", "white")]
    ended, _ = together(scripted, halfway, text_sample(LONG), others)
    assert ended[0] in (0, 1), "the first came alone"
    assert ended[-1] == 3


def test_a_batch_is_interrupted_for_a_part_of_its_time(
    scripted: Any, halfway: Halfway, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, long = (embedding_cost(text_sample(text)) for text in ("red", LONG))
    monkeypatch.setattr(interludes, "SHARE", 1.5 * one / long)
    others = [(tenant, text_sample("red")) for tenant in "bcd"]
    ended, _ = together(scripted, halfway, text_sample(LONG), others)
    assert ended == [1, 0, 2, 3], "there was time for one of as many tokens"


def test_a_batch_of_those_who_send_little_is_waited_for(
    scripted: Any, halfway: Halfway, text_sample: MakeSample
) -> None:
    ended, _ = together(scripted, halfway, text_sample("red"), [("b", text_sample("blue"))])
    assert ended == [0, 1]


def test_a_short_batch_is_waited_for(
    scripted: Any, halfway: Halfway, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interludes, "LEAST_SECONDS", 3600.0)
    ended, _ = together(scripted, halfway, text_sample(LONG), [("b", text_sample("blue"))])
    assert ended == [0, 1]


def test_one_that_fails_fails_alone(
    scripted: Any, halfway: Halfway, text_sample: MakeSample
) -> None:
    scripted.raises = lambda sample: sample.id == "blue"
    others = [("b", text_sample("blue")), ("c", text_sample("red"))]
    _, (running, failed, other) = together(scripted, halfway, text_sample(LONG), others)
    assert isinstance(failed, ServingError)
    assert failed.status == 500
    assert abs(np.linalg.norm(running) - 1) < 1e-3
    assert abs(np.linalg.norm(other) - 1) < 1e-3


def test_one_that_nobody_waits_for_any_more_is_not_computed(
    scripted: Any, halfway: Halfway, text_sample: MakeSample
) -> None:
    async def main() -> None:
        async with scheduling(scripted) as scheduler:
            running = submit(scheduler, "a", text_sample(LONG))
            await reached(halfway)
            left = submit(scheduler, "b", text_sample("blue"))
            kept = submit(scheduler, "c", text_sample("red"))
            left.cancel()
            halfway.go_on.set()
            await asyncio.gather(running, kept)
            assert not scheduler._between

    asyncio.run(main())
    assert scripted.batches == [[LONG], ["red"]]


def test_what_found_no_interlude_is_next(
    scripted: Any, halfway: Halfway, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interludes, "_pass", lambda *_: None)
    others = [("b", text_sample("blue")), ("b", text_sample("red"))]
    ended, _ = together(scripted, halfway, text_sample(LONG), others)
    assert ended == [0, 1, 2]
    assert scripted.batches == [[LONG], ["blue", "red"]]


def test_what_waits_for_an_interlude_fails_when_the_server_stops(
    scripted: Any, halfway: Halfway, text_sample: MakeSample
) -> None:
    async def main() -> list[Any]:
        async with scheduling(scripted) as scheduler:
            futures = [submit(scheduler, "a", text_sample(LONG))]
            await reached(halfway)
            futures.append(submit(scheduler, "b", text_sample("blue")))
            await scheduler.stop()
            halfway.go_on.set()
            return await asyncio.gather(*futures, return_exceptions=True)

    codes = [getattr(error, "code", None) for error in asyncio.run(main())]
    assert codes == ["draining", "draining"]


def test_an_interlude_has_none_of_its_own(model: TrimodalModel, text_sample: MakeSample) -> None:
    done: list[str] = []

    def compute(jobs: list[str]) -> None:
        done.extend(jobs)
        if len(done) < 3:
            between.add("another", 0.0)
            model.embed_samples([text_sample("red")])
            assert len(between) == 1

    between = Interludes(compute)
    between.watch(model)
    between.add("one", 0.0)
    for _ in range(2):
        model.embed_samples([text_sample("blue")])
    assert done == ["one", "another", "another"]
    between.close()
    between.add("late", 0.0)
    model.embed_samples([text_sample("blue")])
    assert between.take() == ["late"]
    between.begin(3600.0)
    assert not between.room, "nothing would be done"
