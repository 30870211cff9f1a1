import numpy as np
import pytest

from trimodal.data.shapes import HELD_OUT, RGB, SHAPES, SIDE, Figure, Scene

GROUND = (128, 200, 90)
AREAS = {  # of the circle with the same radius
    "circle": 1.0,
    "square": 2 / np.pi,
    "triangle": 3 * 3**0.5 / 4 / np.pi,
    "star": 10 * 0.5 * 0.42 * np.sin(np.pi / 5) / np.pi,
    "ring": 1 - (1 - 0.38) ** 2,
    "cross": (4 * 0.64 - 0.64**2) / np.pi,
}


def covered(pixels: np.ndarray) -> np.ndarray:
    """(H, W) bool, where the ground is not to be seen."""
    return (pixels.astype(int) != GROUND).any(axis=2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_figure_has_its_colour_area_and_place(shape: str) -> None:
    pixels = Scene("single", (Figure("red", shape, 30, 40, 14),), GROUND).draw()
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.dtype == np.uint8
    full = (pixels == RGB["red"]).all(axis=2)
    area = (full.sum() + covered(pixels).sum()) / 2  # half of the pixels on the edge
    assert area == pytest.approx(AREAS[shape] * np.pi * 14**2, rel=0.1)
    rows, columns = np.nonzero(covered(pixels))
    assert columns.min() >= 15
    assert columns.max() <= 44
    assert rows.min() >= 25
    assert rows.max() <= 54


def test_shapes_differ() -> None:
    drawn = {
        shape: covered(Scene("single", (Figure("red", shape, 32, 32, 20),), GROUND).draw())
        for shape in SHAPES
    }
    for a in SHAPES:
        for b in SHAPES:
            overlap = (drawn[a] & drawn[b]).sum() / (drawn[a] | drawn[b]).sum()
            assert (overlap == 1) if a == b else (overlap < 0.9)


def test_a_triangle_and_a_star_point_up_and_a_square_stands() -> None:
    for shape in ("triangle", "star"):
        rows = covered(Scene("single", (Figure("red", shape, 32, 32, 20),), GROUND).draw()).sum(1)
        assert 1 <= rows[np.nonzero(rows)[0][0]] <= 4
    square = covered(Scene("single", (Figure("red", "square", 32, 32, 20),), GROUND).draw())
    assert len(set(square.sum(axis=1)) - {0}) == 1


def test_several_figures_are_all_drawn() -> None:
    figures = (Figure("red", "circle", 15, 15, 8), Figure("blue", "ring", 45, 45, 8))
    pixels = Scene("relation", figures, GROUND).draw()
    assert tuple(pixels[15, 15]) == RGB["red"]
    assert tuple(pixels[45, 45]) == GROUND  # the hole of the ring
    assert (pixels == RGB["blue"]).all(axis=2).any()


def test_each_colour_and_shape_is_held_out_at_most_once() -> None:
    assert len(HELD_OUT) == len({c for c, _ in HELD_OUT}) == len({s for _, s in HELD_OUT}) == 6
    assert {c for c, _ in HELD_OUT} <= set(RGB)
    assert {s for _, s in HELD_OUT} == set(SHAPES)
