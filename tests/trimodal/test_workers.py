import os
from collections.abc import Callable

import pytest

from trimodal.errors import DataError, StorageError
from trimodal.workers import Processes


def adder() -> Callable[[int], tuple[int, int]]:
    calls = 0

    def add(part: int) -> tuple[int, int]:
        nonlocal calls
        calls += 1
        return part + 1, calls

    return add


def refuser() -> Callable[[int], int]:
    def refuse(part: int) -> int:
        if part == 2:
            raise DataError("m.jsonl:3: text is empty")
        return part

    return refuse


def stranger() -> Callable[[int], int]:
    raise StorageError("m is not a model folder")


def leaver() -> Callable[[int], int]:
    return lambda _: os._exit(1)


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_the_order_of_the_parts(count: int) -> None:
    found = list(Processes(count).map(adder, range(6)))
    assert [result for result, _ in found] == [1, 2, 3, 4, 5, 6]
    assert max(calls for _, calls in found) >= 6 // count, "a worker is made once"


@pytest.mark.parametrize("count", [1, 2])
def test_the_error_of_a_part_is_that_of_the_job(count: int) -> None:
    results = Processes(count).map(refuser, range(6))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(DataError, match=r"^m\.jsonl:3: text is empty$"):
        next(results)


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_cannot_be_made_says_why(count: int) -> None:
    with pytest.raises(StorageError, match=r"^m is not a model folder$"):
        list(Processes(count).map(stranger, range(2)))


def test_a_worker_that_dies_is_one_sentence() -> None:
    with pytest.raises(StorageError, match="a worker process ended early; `--workers 1` needs"):
        list(Processes(2).map(leaver, range(2)))
