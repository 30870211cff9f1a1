import math

import numpy as np
import pytest

from trimodal.evaluation.frechet import frechet_distance
from trimodal.streams import generator
from trimodal.testing import assert_close


def _cloud(n: int, d: int, key: str = "cloud") -> np.ndarray:
    rng = generator(key, n, d)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d))


@pytest.mark.parametrize(("n", "d"), [(500, 4), (20, 64), (2, 3), (1, 3)])
def test_equal_clouds_are_at_no_distance(n: int, d: int) -> None:
    cloud_ND = _cloud(n, d)
    scale = max(1.0, np.trace(np.cov(cloud_ND.T)) if n > 1 else 1.0)
    assert_close(frechet_distance(cloud_ND, cloud_ND[::-1]) / scale, 0.0, "fp64")


@pytest.mark.parametrize(("n", "d"), [(500, 4), (20, 64), (1, 3)])
def test_a_shift_is_its_square(n: int, d: int) -> None:
    shift_D = np.arange(1.0, d + 1)
    cloud_ND = _cloud(n, d)
    distance = frechet_distance(cloud_ND + shift_D, cloud_ND)
    assert_close(distance, np.square(shift_D).sum(), "fp64")


def test_scaled_axes_by_hand() -> None:
    # variances 1, 4 and 9, 1 along the axes: (3 - 1)^2 + (1 - 2)^2
    corners_ND = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * math.sqrt(3 / 4)
    assert_close(frechet_distance(corners_ND * [1, 2], corners_ND * [3, 1]), 5.0, "fp64")


def test_a_line_and_a_crossing_line() -> None:
    # roots of singular covariances: nothing in common, so the traces add up
    line = np.array([-1.0, 0.0, 1.0])
    a_ND, b_ND = np.stack([line, 0 * line], 1), np.stack([0 * line, 2 * line], 1)
    assert_close(frechet_distance(a_ND, b_ND), 1.0 + 4.0, "fp64")


def test_properties() -> None:
    a_ND, b_MD = _cloud(30, 8), _cloud(50, 8, "other")
    turned_DD = np.linalg.qr(generator("turn").normal(size=(8, 8)))[0]
    distance = frechet_distance(a_ND, b_MD)
    assert distance > 0
    assert_close(frechet_distance(b_MD, a_ND), distance, "fp64")
    assert_close(frechet_distance(a_ND @ turned_DD, b_MD @ turned_DD), distance, "fp64")
    assert_close(frechet_distance(3 * a_ND, 3 * b_MD), 9 * distance, "fp64")
    single = frechet_distance(a_ND.astype(np.float32), b_MD.astype(np.float32))
    assert_close(single, distance, "fp32")


@pytest.mark.parametrize("shapes", [((0, 2), (3, 2)), ((3, 2), (3, 4)), ((3,), (3, 2))])
def test_what_is_no_pair_of_clouds_is_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="cloud"):
        frechet_distance(*(np.zeros(shape) for shape in shapes))
