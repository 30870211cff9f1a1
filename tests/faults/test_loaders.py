"""Loader processes that die or hang are replaced, and nothing else changes."""

from collections.abc import Callable
from typing import Any

import pytest

Harm = Callable[..., dict[str, Any]]
KINDS = ("KILL", "STOP")


def test_lost_loaders_are_replaced(harm: Harm, tree: dict[str, Any]) -> None:
    tree["training"] |= {"max_steps": 27, "batch_size": 4}
    found = harm("loaders.py", harms=",".join(KINDS), losses=2)
    for kind in KINDS:
        assert found[kind]["status"] == 0
        assert found[kind]["traces"]
    assert found["stderr"].count("new ones go on with step") == 2 * len(KINDS)
    assert found["stderr"].count("ended unexpectedly") == 2
    assert found["stderr"].count("were silent for 300 s") == 2


@pytest.mark.faults
def test_after_the_fourth_loss_the_run_asks_to_be_started_again(
    harm: Harm, tree: dict[str, Any]
) -> None:
    tree["training"]["max_steps"] = 100
    found = harm("loaders.py", harms=",".join(KINDS), losses=4)
    for kind in KINDS:
        assert found[kind]["status"] == 75
        assert found[kind]["saved"], "from its last checkpoint"
    assert found["stderr"].count("for the 4th time; the same command goes on") == len(KINDS)
