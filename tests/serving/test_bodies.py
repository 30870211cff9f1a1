import pytest

from trimodal_serving.bodies import Bodies
from trimodal_serving.errors import ServingError


def refused(bodies: Bodies, tenant: str, size: int, alone: bool = False) -> int | None:
    with pytest.raises(ServingError) as caught:
        bodies.take(tenant, size, alone)
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    return caught.value.retry_after


def test_all_is_for_one_that_is_alone() -> None:
    bodies = Bodies(100)
    bodies.take("anonymous", 100, alone=True)
    assert refused(bodies, "anonymous", 1, alone=True) == 1
    bodies.give("anonymous", 100, 0.1)
    bodies.take("anonymous", 100, alone=True)


def test_half_is_for_one_of_several() -> None:
    bodies = Bodies(100)
    bodies.take("noisy", 50, alone=False)
    refused(bodies, "noisy", 1)
    bodies.take("quiet", 50, alone=False)
    refused(bodies, "third", 1)
    bodies.give("noisy", 30, 0.1)
    bodies.take("third", 30, alone=False)


def test_retry_after_follows_how_long_bodies_stay() -> None:
    bodies = Bodies(100)
    for _ in range(20):
        bodies.take("a", 100, alone=True)
        bodies.give("a", 100, 39.0)
    bodies.take("a", 100, alone=True)
    assert refused(bodies, "a", 1, alone=True) == 20
