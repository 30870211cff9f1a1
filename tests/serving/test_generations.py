import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from trimodal.batch import Modality, Sample
from trimodal.models.decoding import Decoding
from trimodal.models.generation import Request
from trimodal_serving.composition import Task
from trimodal_serving.errors import ServingError
from trimodal_serving.generations import MOST_BATCHES, Generations

MakeSample = Callable[[str], Sample]


class Log:
    """Compositions that take three steps and write down whose turn it is."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.raises: Callable[[str], bool] = lambda _: False
        self.observed: list[int] = []

    def compose(self, tasks: Sequence[Task]) -> Any:
        return _Composition(self, [task.sample.id for task in tasks])

    def observe(self, tokens: int, _: float) -> None:
        self.observed.append(tokens)


class _Composition:
    def __init__(self, log: Log, names: Sequence[str]) -> None:
        self._log, self._names, self._taken = log, names, 0

    def step(self) -> Any:
        self._log.steps.append("+".join(self._names))
        self._taken += 1
        if self._taken == 2 and any(map(self._log.raises, self._names)):
            raise RuntimeError("secret")
        if self._taken == 3:
            return [f"made of {name}" for name in self._names]
        return {i: [self._taken] * self._taken for i in range(len(self._names))}


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def task(text_sample: MakeSample) -> Callable[..., Task]:
    def task(name: str, to: Modality = Modality.TEXT, **changes: Any) -> Task:
        return Task(text_sample(name), None, Request(to=to), Decoding(**changes), 0, room=4)

    return task


def run(log: Log, use: Callable[[Generations], list[Any]], budget: int = 16_384) -> list[Any]:
    """The results of what `use` submits, when all turns were taken."""

    async def main() -> list[Any]:
        with ThreadPoolExecutor(1) as executor:
            generations = Generations(log.compose, executor, budget, log.observe)
            futures = use(generations)
            for _ in range(100):
                if generations.busy:
                    await generations.turn()
            assert not generations.busy
            return await asyncio.gather(*futures, return_exceptions=True)

    return asyncio.run(main())


def test_one_kind_shares_a_batch_and_kinds_take_turns(log: Log, task: Callable[..., Task]) -> None:
    made = [task("a"), task("b", steps=3), task("c"), task("d", Modality.VISION)]
    results = run(log, lambda generations: [generations.submit(one) for one in made])
    assert results == [f"made of {name}" for name in "abcd"]
    assert log.steps == ["a+c", "a+c", "b", "a+c", "d", "b", "d", "b", "d"]
    assert log.observed[0] == made[0].cost + made[2].cost


def test_a_batch_holds_no_more_than_the_budget(log: Log, task: Callable[..., Task]) -> None:
    made = [task("red"), task("blue"), task("white")]
    budget = made[0].held + made[1].held
    run(log, lambda generations: [generations.submit(one) for one in made], budget)
    assert set(log.steps) == {"red+blue", "white"}
    log.steps.clear()
    run(log, lambda generations: [generations.submit(one) for one in made], budget=1)
    assert set(log.steps) == {"red", "blue", "white"}


def test_few_batches_run_at_once(log: Log, task: Callable[..., Task]) -> None:
    made = [task(str(i), steps=i + 1) for i in range(MOST_BATCHES + 2)]
    run(log, lambda generations: [generations.submit(one) for one in made])
    before = log.steps[: log.steps.index(str(MOST_BATCHES))]
    assert set(before) == {str(i) for i in range(MOST_BATCHES)}
    assert "0" not in log.steps[len(before) :]  # one had to end first


def test_the_listener_hears_a_text_grow(log: Log, task: Callable[..., Task]) -> None:
    heard: list[Any] = []
    run(log, lambda generations: [generations.submit(task("a"), heard.append)])
    assert heard == [[1], [2, 2]]


def test_an_output_that_fails_fails_alone(log: Log, task: Callable[..., Task]) -> None:
    log.raises = lambda name: name == "b"
    made = [task(name) for name in "abcd"]
    results = run(log, lambda generations: [generations.submit(one) for one in made])
    assert [getattr(one, "code", one) for one in results] == [
        "made of a",
        "internal",
        "made of c",
        "made of d",
    ]
    assert isinstance(results[1], ServingError)
    assert str(results[1].__cause__) == "secret"


def test_nobody_waits_so_nothing_is_computed(log: Log, task: Callable[..., Task]) -> None:
    def use(generations: Generations) -> list[Any]:
        futures = [generations.submit(task(name)) for name in "ab"]
        for future in futures:
            future.cancel()
        return futures

    run(log, use)
    assert log.steps == []


def test_a_batch_is_given_up_between_two_steps(log: Log, task: Callable[..., Task]) -> None:
    def use(generations: Generations) -> list[Any]:
        first: Any = generations.submit(task("a"), lambda _: first.cancel())
        other: Any = generations.submit(task("b", steps=3))
        return [first, other]

    results = run(log, use)
    assert isinstance(results[0], asyncio.CancelledError)
    assert log.steps == ["a", "b", "b", "b"]


def test_who_shares_a_batch_with_one_that_left_is_served(
    log: Log, task: Callable[..., Task]
) -> None:
    def use(generations: Generations) -> list[Any]:
        first: Any = generations.submit(task("a"), lambda _: first.cancel())
        return [first, generations.submit(task("b"))]

    assert run(log, use)[1] == "made of b"
    assert log.steps == ["a+b"] * 3


def test_unfinished_are_those_that_wait_and_those_that_run(
    log: Log, task: Callable[..., Task]
) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            generations = Generations(log.compose, executor, 1, log.observe)
            futures = [generations.submit(task(name)) for name in "ab"]
            await generations.turn()
            assert set(generations.unfinished()) == set(futures)

    asyncio.run(main())
