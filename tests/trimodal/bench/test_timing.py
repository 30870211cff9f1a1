import time

import pytest
import torch

from trimodal.bench.timing import Row, compare, medians, one_thread


def test_a_ratio_says_how_many_times_as_fast() -> None:
    row = compare("it", 2.0, 5.0, 2.0)
    assert (row.ratio, row.passes) == (2.5, True)
    assert not compare("it", 3.0, 5.0, 2.0).passes
    assert compare("it", 3.0, 5.0, None).passes
    assert Row("it", 2.0, 2.0, 1.0, 2.0).passes


def test_ways_are_interleaved_and_run_as_often() -> None:
    calls: list[str] = []
    medians({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=4)
    assert calls == ["a", "b", "b", "a", "a", "b", "b", "a", "a", "b"]


def test_only_work_of_this_process_counts() -> None:
    x = torch.randn(200, 200)
    taken = medians({"idle": lambda: time.sleep(0.02), "busy": lambda: [x @ x for _ in range(40)]})
    assert taken["idle"] < taken["busy"]


def test_threads_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
