"""A run that is killed has the losses, the samples and the weights of one that is not."""

from collections.abc import Callable
from typing import Any

import pytest

Harm = Callable[..., dict[str, Any]]


def _holds(found: dict[str, Any], steps: int) -> None:
    assert found["traces"], "every loss and gradient norm is the same to the last bit"
    assert found["weights"]
    assert found["steps"], "each step once, in order"
    assert found["samples"]
    assert found["distinct"] == steps, "each step has samples of its own"
    assert found["conflicts"] == 0, "a step that was computed twice gave the same twice"
    assert found["left"] == []


def test_a_few_kills(harm: Harm, tree: dict[str, Any]) -> None:
    tree["training"]["batch_size"] = 4
    found = harm("kills.py", kills=3, inside=2, workers="0,2", steps=24)
    for workers in ("0", "2"):
        assert found[workers]["kills"] == 3
        assert found[workers]["inside"] == 2
        _holds(found[workers], 24)


def test_an_average_survives_kills(harm: Harm, tree: dict[str, Any]) -> None:
    """What is exported, and compared here, is the average of the weights."""
    tree["training"] |= {
        "batch_size": 4,
        "ema": {"decay": 0.9},
        "layer_decay": {"trunk": 0.8},
        "learning_rate_scale": {"text": 0.5},
    }
    found = harm("kills.py", kills=3, inside=2, workers=0, steps=24, seed=5)["0"]
    assert found["kills"] == 3
    assert found["inside"] == 2
    _holds(found, 24)


@pytest.mark.faults
def test_fifty_kills(harm: Harm) -> None:
    found = harm("kills.py", kills=50, inside=12, workers="0,2", steps=240, seed=7)
    for workers in ("0", "2"):
        assert found[workers]["kills"] == 50
        assert found[workers]["inside"] >= 10
        _holds(found[workers], 240)
