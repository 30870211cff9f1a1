"""A checkpoint is in place whole or not at all, wherever its writer dies."""

from collections.abc import Callable
from typing import Any

Harm = Callable[..., dict[str, Any]]
LEAST = 50


def test_a_death_at_every_stage_leaves_the_former_or_the_new_one(harm: Harm) -> None:
    found = harm("stages.py")
    assert len(found["new"]) + len(found["over"]) > LEAST
    for deaths in (found["new"], found["over"]):
        assert [death["died"] for death in deaths] == [True] * (len(deaths) - 1) + [False]
        steps = [death["step"] for death in deaths]
        assert set(steps) == {2, 3}
        assert steps == sorted(steps), "once it is there it stays"
        for death in deaths:
            assert death["whole"]
            assert death["former"], "what was good before is as it was"
            assert death["left"] == [], "the next checkpoint clears what was begun"
