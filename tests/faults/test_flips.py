"""A flipped bit in a checkpoint is noticed, and the one before it is used."""

from collections.abc import Callable
from typing import Any

import pytest

Harm = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("flips", [80, pytest.param(1000, marks=pytest.mark.faults)])
def test_every_flip_is_detected_or_changes_nothing(
    harm: Harm, tree: dict[str, Any], flips: int
) -> None:
    tree["training"]["max_steps"] = 6  # the end of two checkpoints
    files = harm("flips.py", flips=flips)["files"]
    assert set(files) == {
        "codes.safetensors",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    }
    assert sum(sum(kinds.values()) for kinds in files.values()) == flips
    for name, kinds in files.items():
        # white space of the manifest, or a key in it that nobody reads
        allowed = {"detected", "harmless"} if name == "manifest.json" else {"detected"}
        assert set(kinds) <= allowed, (name, kinds)
