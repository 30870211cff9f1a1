"""What is not finite on one rank is left out by all, and is never saved."""

from collections.abc import Callable
from typing import Any

import pytest

Harm = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("trials", [6, pytest.param(20, marks=pytest.mark.faults)])
def test_all_ranks_leave_the_step_out(harm: Harm, trials: int) -> None:
    found = harm("nans.py", trials=trials)
    assert len(found["faults"]) == trials
    assert all(found["alike"]), "weights and optimizer are the same on both ranks after each step"
    left_out = [int(step) for step, kept in found["kept"].items() if kept]
    assert left_out == found["faults"], "the weights of the step before, there and only there"
    assert found["finite"]
    assert all(found["finite"])
