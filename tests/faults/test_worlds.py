"""A run goes on with another number of processes: the same samples, the same losses."""

from collections.abc import Callable
from typing import Any

import pytest

from trimodal.testing import assert_close

Harm = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("steps", [8, pytest.param(200, marks=pytest.mark.faults)])
def test_one_two_four_one(harm: Harm, tree: dict[str, Any], steps: int) -> None:
    goes_on(harm, tree, "1,2,4,1", steps)


@pytest.mark.parametrize(
    ("worlds", "steps", "looks"),
    [("2s,1", 8, 3), pytest.param("2s,1,4s,2", 200, 8, marks=pytest.mark.faults)],
)
def test_spread_over_ranks_or_not(
    harm: Harm, tree: dict[str, Any], worlds: str, steps: int, looks: int
) -> None:
    """Parameters and moments of each rank's own, in micro-batches, and looked at between."""
    training, data = tree["training"], tree["data"]
    training |= {"token_budget": 400, "validate_every": looks, "sample_every": looks}
    data["validation"] = data["train"][0]
    expected, norms = goes_on(harm, tree, worlds, steps)["norms"]
    for i in range(3):
        assert len(expected[i]) == 6, "of all, of three encoders, of the trunk and of heads"
        assert norms[i].keys() == expected[i].keys()
        assert_close(list(norms[i].values()), list(expected[i].values()), "fp32-gradient")


def goes_on(harm: Harm, tree: dict[str, Any], worlds: str, steps: int) -> dict[str, Any]:
    """With dropout; matching is off, whose negatives come from the rank's own samples.

    At ten times this rate with hardly a warm-up, the first steps of Adam go by the sign of entries
    that are zero but for rounding, and two sums in another order part by 3e-4 within 50 steps.
    """
    del tree["objectives"]["matching"]
    tree["training"]["learning_rate"] = 3e-4
    found = harm("worlds.py", worlds=worlds, steps=steps)
    (expected, losses), (samples, seen) = found["losses"], found["samples"]
    assert len(set(samples)) == steps
    assert seen == samples, "none is repeated, none is skipped"
    assert_close(losses, expected, "two-processes-loss")
    return found
