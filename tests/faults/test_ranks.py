"""A rank that dies or stands still ends the others; the same command goes on."""

from collections.abc import Callable
from typing import Any

import pytest

Harm = Callable[..., dict[str, Any]]


def _goes_on(found: dict[str, Any], world: int) -> None:
    assert len(found["statuses"]) == world - 1
    assert all(found["statuses"]), "no other rank ends as if all were well"
    assert found["again"] == [0] * world
    assert found["traces"]


@pytest.mark.parametrize("victim", [0, 1])
def test_one_of_two_is_killed(harm: Harm, victim: int) -> None:
    _goes_on(harm("ranks.py", world=2, victim=victim), 2)


def test_one_of_two_is_stopped(harm: Harm, tree: dict[str, Any]) -> None:
    tree["training"]["watchdog_seconds"] = 10
    found = harm("ranks.py", world=2, victim=1, harm="STOP")
    _goes_on(found, 2)
    assert "Timeout (0:00:10)!" in found["stderr"], "the watchdog says where it stood"
    assert "all_reduce" in found["stderr"]


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["KILL", "STOP"])
@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("step", [1, 6, 7, 20])
def test_one_of_four(harm: Harm, tree: dict[str, Any], victim: int, step: int, kind: str) -> None:
    tree["training"]["watchdog_seconds"] = 20
    _goes_on(harm("ranks.py", world=4, victim=victim, step=step, harm=kind), 4)
