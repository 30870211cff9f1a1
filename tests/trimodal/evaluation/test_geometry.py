import numpy as np
import pytest

from trimodal.evaluation.geometry import MOST_POINTS, alignment, gap, uniformity


def test_alignment_of_equal_orthogonal_and_opposite_pairs() -> None:
    a = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert alignment(a, a) == 0
    assert alignment(a, a[::-1]) == pytest.approx(2)
    assert alignment(a, -a) == pytest.approx(4)


def test_uniformity_by_hand() -> None:
    assert uniformity(np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(0)
    assert uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)
    three = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = np.log((2 * np.exp(-4) + np.exp(-8)) / 3)
    assert uniformity(three) == pytest.approx(expected)


def test_uniformity_of_many_is_that_of_an_even_sample() -> None:
    rng = np.random.default_rng(0)
    many = rng.standard_normal((3 * MOST_POINTS + 1, 4))
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    assert uniformity(many) == pytest.approx(uniformity(many[::4]))


def test_gap_is_the_distance_of_the_means() -> None:
    a, b = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[-1.0, 0.0]])
    assert gap(a, a) == 0
    assert gap(a, b) == pytest.approx(np.hypot(1.5, 0.5))
