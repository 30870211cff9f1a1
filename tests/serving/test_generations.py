import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from trimodal.batch import Modality, Sample
from trimodal.models.decoding import Decoding, Grown
from trimodal.models.generation import Request
from trimodal_serving import generations as module
from trimodal_serving.caller import Caller, acting
from trimodal_serving.composition import Outcome, Task
from trimodal_serving.errors import ServingError
from trimodal_serving.generations import MOST_BATCHES, Generations
from trimodal_serving.meter import unmeasured

MakeSample = Callable[[str], Sample]
KINDS: list[dict[str, Any]] = [
    {"to": to, "guidance": guidance} for guidance in (1.0, 2.0) for to in Modality
]


class Log:
    """Compositions that take three steps and write down whose turn it is."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.raises: Callable[[str], bool] = lambda _: False
        self.observed: list[int] = []

    def compose(self, _: Any) -> Any:
        return _Composition(self)

    def observe(self, tokens: int, seconds: float) -> None:
        assert seconds > 0
        self.observed.append(tokens)


class _Composition:
    """Each output is done after three steps, and fails in its second if it is to."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._names: dict[int, str] = {}
        self._taken: dict[int, int] = {}

    def add(self, tasks: Mapping[int, Task]) -> None:
        self._names |= {number: task.sample.id for number, task in tasks.items()}
        self._taken |= dict.fromkeys(tasks, 0)

    def drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            del self._names[number], self._taken[number]

    def step(self) -> Outcome:
        self._log.steps.append("+".join(self._names.values()))
        self._taken = {number: taken + 1 for number, taken in self._taken.items()}
        if any(self._log.raises(self._names[i]) and n == 2 for i, n in self._taken.items()):
            failed = list(self._names)
            self.drop(failed)
            return Outcome(failed=failed, error=RuntimeError("secret"))
        done: Any = {i: f"made of {self._names[i]}" for i, n in self._taken.items() if n == 3}
        grown = {i: Grown([n] * n, n) for i, n in self._taken.items() if n < 3}
        self.drop(done)
        return Outcome(grown, done)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def task(text_sample: MakeSample) -> Callable[..., Task]:
    def task(name: str, to: Modality = Modality.TEXT, **changes: Any) -> Task:
        return Task(text_sample(name), None, Request(to=to), Decoding(**changes), 0, room=4)

    return task


def run(
    log: Log, use: Callable[[Generations], list[Any]], budget: int = 16_384, meter: Any = unmeasured
) -> list[Any]:
    """The results of what `use` submits, when all turns were taken."""

    async def main() -> list[Any]:
        with ThreadPoolExecutor(1) as executor:
            generations = Generations(log.compose, executor, budget, log.observe, meter)
            futures = use(generations)
            for _ in range(100):
                if generations.busy:
                    await generations.turn()
            assert not generations.busy
            return await asyncio.gather(*futures, return_exceptions=True)

    return asyncio.run(main())


def test_one_kind_shares_a_batch_and_kinds_take_turns(log: Log, task: Callable[..., Task]) -> None:
    made = [task("a"), task("b", guidance=3.0), task("c", steps=3), task("d", Modality.VISION)]
    results = run(log, lambda generations: [generations.submit(one) for one in made])
    assert results == [f"made of {name}" for name in "abcd"]
    assert log.steps == ["a+c", "b", "d"] * 3
    assert log.observed[0] == made[0].cost + made[2].cost


def test_steps_are_measured_like_batches(log: Log, task: Callable[..., Task]) -> None:
    measured: dict[str, list[float]] = {}
    log.raises = lambda name: name == "b"

    def meter(name: str, value: float) -> None:
        measured.setdefault(name, []).append(value)

    made = [task("a"), task("b")]
    run(log, lambda generations: [generations.submit(one) for one in made], meter=meter)
    assert len(measured["queue_wait_seconds"]) == 2, "once for each, though they were tried again"
    assert len(measured["inference_seconds"]) == len(log.steps)
    assert measured["batch_items"] == [len(step.split("+")) for step in log.steps]


def test_one_joins_the_batch_of_its_kind_that_runs(log: Log, task: Callable[..., Task]) -> None:
    def use(generations: Generations) -> list[Any]:
        futures = []

        def join(_: Any) -> None:
            if len(futures) == 1:
                futures.append(generations.submit(task("b")))

        futures.append(generations.submit(task("a"), join))
        return futures

    run(log, use)
    assert log.steps == ["a", "a+b", "a+b", "b"]


def test_nobody_overtakes_one_that_has_to_wait(log: Log, task: Callable[..., Task]) -> None:
    """Texts that would join their batch for ever wait behind a kind for which there is no room."""
    made = [task(str(i), **KINDS[i]) for i in range(MOST_BATCHES)]
    futures: list[Any] = []

    def use(generations: Generations) -> list[Any]:
        def more(_: Any) -> None:
            if len(futures) == MOST_BATCHES:
                futures.append(generations.submit(task("waits", **KINDS[MOST_BATCHES])))
                futures.extend(generations.submit(task(f"late{i}", **KINDS[0])) for i in range(3))

        futures.extend(generations.submit(one, more) for one in made)
        return futures

    run(log, use)
    first = [
        next(i for i, step in enumerate(log.steps) if name in step) for name in ("waits", "late0")
    ]
    assert first[0] < first[1]
    assert "0+late0+late1+late2" not in log.steps


def test_a_batch_holds_no_more_than_the_budget(log: Log, task: Callable[..., Task]) -> None:
    made = [task("red"), task("blue"), task("white")]
    budget = made[0].held + made[1].held
    run(log, lambda generations: [generations.submit(one) for one in made], budget)
    assert log.steps == ["red+blue", "white"] * 3
    log.steps.clear()
    run(log, lambda generations: [generations.submit(one) for one in made], budget=1)
    assert set(log.steps) == {"red", "blue", "white"}


def test_few_batches_run_at_once(log: Log, task: Callable[..., Task]) -> None:
    made = [task(str(i), **KINDS[i]) for i in range(MOST_BATCHES + 2)]
    run(log, lambda generations: [generations.submit(one) for one in made])
    before = log.steps[: log.steps.index(str(MOST_BATCHES))]
    assert set(before) == {str(i) for i in range(MOST_BATCHES)}
    assert "0" not in log.steps[len(before) :]  # one had to end first


def test_the_listener_hears_a_text_grow(log: Log, task: Callable[..., Task]) -> None:
    heard: list[Any] = []
    run(log, lambda generations: [generations.submit(task("a"), heard.append)])
    assert heard == [([1], 1), ([2, 2], 2)]


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
        other: Any = generations.submit(task("b", guidance=2.0))
        return [first, other]

    results = run(log, use)
    assert isinstance(results[0], asyncio.CancelledError)
    assert log.steps == ["a", "b", "b", "b"]


def test_what_is_cancelled_before_its_first_step_is_not_computed(
    log: Log, task: Callable[..., Task]
) -> None:
    def use(generations: Generations) -> list[Any]:
        second: Any = generations.submit(task("b", guidance=2.0))
        first: Any = generations.submit(task("a"), lambda _: second.cancel())
        return [first, second]

    results = run(log, use)
    assert results[0] == "made of a"
    assert log.steps[-2:] == ["a", "a"]


def test_who_shares_a_batch_with_one_that_left_is_served(
    log: Log, task: Callable[..., Task]
) -> None:
    def use(generations: Generations) -> list[Any]:
        first: Any = generations.submit(task("a"), lambda _: first.cancel())
        return [first, generations.submit(task("b"))]

    assert run(log, use)[1] == "made of b"
    assert log.steps == ["a+b", "b", "b"]


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


def test_one_alone_fills_no_steps_that_others_would_wait_for(
    log: Log, task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [task(str(i), Modality.VISION) for i in range(MOST_BATCHES + 3)]
    for bound, together in (("LONGEST_STEP", 1), ("LONGEST_STEP", 2), ("FIRST_STEP", 3)):
        is_known = bound == "LONGEST_STEP"
        monkeypatch.setattr(
            module.Pace, "seconds", lambda _, n, known=is_known: float(n) if known else None
        )
        monkeypatch.setattr(module, bound, together * made[0].step)
        log.steps.clear()
        results = run(log, lambda generations: [generations.submit(one) for one in made])
        assert results == [f"made of {i}" for i in range(len(made))]
        assert {step.count("+") + 1 for step in log.steps[:2]} == {together}
        assert max(step.count("+") + 1 for step in log.steps) == together


def test_a_step_says_how_long_it_will_take(log: Log, task: Callable[..., Task]) -> None:
    class Told:
        def __init__(self) -> None:
            self.begun: list[float] = []

        def begin(self, seconds: float) -> None:
            self.begun.append(seconds)

        def end(self) -> float:
            return -10.0  # so that a step takes that much longer

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            told: Any = Told()
            generations = Generations(log.compose, executor, 16_384, log.observe, interludes=told)
            future = generations.submit(task("a"))
            while generations.busy:
                await generations.turn()
            await future
            first, *others = told.begun
            assert first == 0, "nothing was known"
            assert all(10 < seconds < 20 for seconds in others)

    asyncio.run(main())


@pytest.mark.parametrize(("longest", "shared"), [(3600.0, True), (-1.0, False)])
def test_tenants_share_a_batch_while_its_steps_are_short(
    log: Log,
    task: Callable[..., Task],
    monkeypatch: pytest.MonkeyPatch,
    longest: float,
    shared: bool,
) -> None:
    monkeypatch.setattr(module, "LONGEST_SHARED_STEP", longest)
    monkeypatch.setattr(module.Pace, "seconds", lambda *_: 0.0)

    def use(generations: Generations) -> list[Any]:
        futures = []
        for name, tenant in (("a", "noisy"), ("b", "noisy"), ("c", "quiet"), ("d", "noisy")):
            with acting(Caller(tenant)):
                futures.append(generations.submit(task(name)))
        return futures

    run(log, use)
    assert set(log.steps) == ({"a+c+b+d"} if shared else {"a+b+d", "c"})


def test_tenants_share_long_steps_where_there_is_no_room_for_another_batch(
    log: Log, task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_SHARED_STEP", -1.0)
    monkeypatch.setattr(module.Pace, "seconds", lambda *_: 0.0)
    count = 2 * MOST_BATCHES

    def use(generations: Generations) -> list[Any]:
        futures = []
        for i in range(count + 2):
            with acting(Caller(f"tenant {i}")):
                futures.append(generations.submit(task(str(i))))
        return futures

    run(log, use)
    assert len(set(log.steps)) == count
    assert f"0+{count}+{count + 1}" in log.steps
