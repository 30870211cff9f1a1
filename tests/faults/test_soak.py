"""A long run takes no more memory, files or threads as it goes on."""

from collections.abc import Callable
from typing import Any

import pytest

Harm = Callable[..., dict[str, Any]]


def test_sixty_steps(harm: Harm) -> None:
    """Six checkpoints; too few to tell a slope of memory from what is filled once."""
    found = harm("soak.py", steps=60, every=2)
    for name in ("files", "threads", "tasks"):
        assert len(found[name]) == 1, found


@pytest.mark.faults
def test_twenty_thousand_steps(harm: Harm) -> None:
    found = harm("soak.py", steps=20_000)
    assert found["megabytes_per_1000"] < 1, found
    # a checkpoint that is being written has a file and a thread of its own
    assert max(found["files"]) - min(found["files"]) <= 2, found
    assert max(found["threads"]) - min(found["threads"]) <= 1, found
    assert max(found["tasks"]) - min(found["tasks"]) <= 1, found
