"""Loader processes that die or hang are replaced, and nothing else changes."""

from collections.abc import Callable
from typing import Any

import pytest

Harm = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("kind", ["KILL", "STOP"])
def test_lost_loaders_are_replaced(harm: Harm, tree: dict[str, Any], kind: str) -> None:
    tree["training"]["max_steps"] = 36
    found = harm("loaders.py", harm=kind, losses=2)
    assert found["status"] == 0
    assert found["traces"]
    assert found["stderr"].count("new ones go on with step") == 2


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["KILL", "STOP"])
def test_after_the_fourth_loss_the_run_asks_to_be_started_again(
    harm: Harm, tree: dict[str, Any], kind: str
) -> None:
    tree["training"]["max_steps"] = 100
    found = harm("loaders.py", harm=kind, losses=4)
    assert found["status"] == 75
    assert "for the 4th time; the same command goes on" in found["stderr"]
    assert found["saved"], "from its last checkpoint"
