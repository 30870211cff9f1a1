"""A rank that dies or stands still ends the others; the same command goes on."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

Harm = Callable[..., dict[str, Any]]


def _goes_on(found: dict[str, Any], cases: Sequence[str], world: int) -> None:
    for case in cases:
        statuses = found[case]["statuses"]
        assert len(statuses) == world - 1
        if case.endswith("KILL"):
            assert statuses == [75] * (world - 1), "each says that the same command goes on"
            assert f"of {world}: another process of the run ended" in found["stderr"]
        else:  # its own watchdog, or the end of another rank by that
            assert set(statuses) <= {1, 75}
        assert found[case]["again"] == [0] * world
        assert found[case]["traces"]


def test_one_of_two(harm: Harm, tree: dict[str, Any]) -> None:
    tree["training"] |= {"watchdog_seconds": 10, "max_steps": 6, "batch_size": 4}
    cases = ("1:5:KILL", "1:5:STOP")
    found = harm("ranks.py", world=2, cases=",".join(cases))
    _goes_on(found, cases, 2)
    assert "Timeout (0:00:10)!" in found["stderr"], "the watchdog says where it stood"
    assert "all_reduce" in found["stderr"]


def test_sums_of_four_ranks_are_as_exact(harm: Harm, tree: dict[str, Any]) -> None:
    """The order in which more than two ranks add is no other after a resume."""
    tree["training"] |= {"watchdog_seconds": 20, "max_steps": 6, "batch_size": 4}
    _goes_on(harm("ranks.py", world=4, cases="0:5:KILL"), ["0:5:KILL"], 4)


@pytest.mark.faults
def test_one_of_four(harm: Harm, tree: dict[str, Any]) -> None:
    tree["training"]["watchdog_seconds"] = 20
    drawn = itertools.product(range(4), (1, 6, 7, 20), ("KILL", "STOP"))
    cases = [f"{victim}:{step}:{kind}" for victim, step, kind in drawn]
    _goes_on(harm("ranks.py", world=4, cases=",".join(cases)), cases, 4)
