"""A full disk ends a run with status 74, and the checkpoint before is as it was."""

from collections.abc import Callable
from typing import Any

import pytest

Harm = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("sizes", [2, pytest.param(8, marks=pytest.mark.faults)])
def test_a_few_sizes(harm: Harm, sizes: int) -> None:
    """Needs a kernel that lets users make namespaces, in which they may mount."""
    found = harm("full_disk.py", sizes=sizes)
    assert len(found["disks"]) == sizes
    for disk in found["disks"]:
        assert disk["statuses"] == [0, 74], disk
        assert disk["step"] == found["every"]
        assert disk["same"]
        assert disk["left"] == [f"step-{found['every']:08d}"]
    assert found["stderr"].count("cannot be written: ") == sizes
