"""Damage to a shard is noticed with its place, or changes nothing; no sample is lost in silence."""

from collections.abc import Callable
from typing import Any

import pytest

Harm = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("mutations", [40, pytest.param(500, marks=pytest.mark.faults)])
def test_every_mutation_is_detected_or_harmless(harm: Harm, mutations: int) -> None:
    found = harm("mutations.py", mutations=mutations)
    assert found["shards"] == 10
    assert len(found["mutations"]) == mutations
    for one in found["mutations"]:
        assert one["harmless"] != one["named"], one
        assert one["counted"], one
        assert one["right"], one
        assert (one["skipped"] == 0) == one["harmless"], one
    assert {one["damage"] for one in found["mutations"] if one["named"]} == {
        "flip", "zero", "truncate", "reorder", "duplicate"
    }  # fmt: skip
