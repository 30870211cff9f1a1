"""A run goes on with another number of processes: the same samples, the same losses."""

from collections.abc import Callable
from typing import Any

import pytest

from trimodal.testing import assert_close

Harm = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("steps", [16, pytest.param(200, marks=pytest.mark.faults)])
def test_one_two_four_one(harm: Harm, tree: dict[str, Any], steps: int) -> None:
    """With dropout; matching is off, whose negatives come from the rank's own samples."""
    del tree["objectives"]["matching"]
    found = harm("worlds.py", worlds="1,2,4,1", steps=steps)
    (expected, losses), (samples, seen) = found["losses"], found["samples"]
    assert len(set(samples)) == steps
    assert seen == samples, "none is repeated, none is skipped"
    assert_close(losses, expected, "two-processes-loss")
