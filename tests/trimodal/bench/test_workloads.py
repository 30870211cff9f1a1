import numpy as np
import pytest
import torch

from trimodal.bench.workloads import WORKLOADS, Problem, draw_lengths

EXPECTED = {
    "fixed images": (197, 197, 197),
    "native-size images": (64, 256, 160),
    "captions": (8, 77, 18),
    "spoken captions": (50, 500, 218),
    "long speech": (37, 875, 306),
    "single stream": (8, 833, 329),
    "shared trunk": (8, 500, 132),
}
"""Least, most and mean of the lengths of segments."""


@pytest.mark.parametrize("workload", WORKLOADS)
def test_lengths_are_those_of_the_study(workload: str) -> None:
    lengths = draw_lengths(workload, 400_000, seed=1)
    least, most, mean = EXPECTED[workload]
    assert min(lengths) >= least
    assert max(lengths) <= most
    assert np.mean(lengths) == pytest.approx(mean, rel=0.06)
    assert 400_000 <= sum(lengths) < 400_000 + most


def test_shapes_differ_and_can_be_drawn_again() -> None:
    drawn = [tuple(draw_lengths("captions", 500, seed)) for seed in range(200)]
    assert len(set(drawn)) == 200
    assert drawn[3] == tuple(draw_lengths("captions", 500, 3))
    assert len(draw_lengths("long speech", 1, 0)) == 2


def test_a_problem_is_of_its_lengths() -> None:
    problem = Problem.draw([3, 5], torch.device("cpu"), torch.float32)
    shapes = {tuple(x.shape) for x in (*problem.inputs, problem.grad)}
    assert shapes == {(8, 12, 64)}
    assert problem.segments.table_S5[:, :2].tolist() == [[0, 3], [3, 8]]
