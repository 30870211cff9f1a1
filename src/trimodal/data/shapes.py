"""Scenes of coloured shapes on a plain ground, and how they are drawn.

pixels = Scene("single", (Figure("red", "star", 32, 13, 9),), (200, 210, 180), link=1).draw()
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

SIDE, OVERSAMPLING = 64, 4
RGB = {
    "red": (216, 36, 40),
    "orange": (242, 132, 16),
    "yellow": (244, 208, 32),
    "green": (40, 156, 64),
    "blue": (36, 80, 216),
    "purple": (136, 44, 196),
    "black": (18, 18, 18),
    "white": (246, 246, 246),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
HELD_OUT = frozenset(
    {
        ("red", "ring"),
        ("orange", "circle"),
        ("yellow", "cross"),
        ("green", "square"),
        ("blue", "star"),
        ("purple", "triangle"),
    }
)
"""Colour and shape pairs that training never shows, each half of which it shows often."""


@dataclass(frozen=True)
class Figure:
    """One shape; the place is its middle and the radius its reach, in pixels."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float

    @property
    def pair(self) -> tuple[str, str]:
        """Colour and shape."""
        return self.colour, self.shape


@dataclass(frozen=True)
class Scene:
    """What is to be seen; its figures do not overlap."""

    kind: Literal["single", "count", "relation", "trio"]
    """One figure; several of one pair; two that differ; three that differ."""
    figures: tuple[Figure, ...]
    ground: tuple[int, int, int]
    link: int = 0
    """Where a single figure is, as a cell of a 3 x 3 grid in reading order, or how the first of
    two lies to the second: above, below, left, right."""

    def draw(self) -> np.ndarray:
        """Render `SIDE` x `SIDE` pixels (H, W, 3) uint8, smoothed by averaging a larger drawing."""
        side = SIDE * OVERSAMPLING
        image = Image.new("RGB", (side, side), self.ground)
        canvas = ImageDraw.Draw(image)
        for figure in self.figures:
            _draw_figure(canvas, figure)
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def _draw_figure(canvas: ImageDraw.ImageDraw, figure: Figure) -> None:
    x, y, radius = (v * OVERSAMPLING for v in (figure.x, figure.y, figure.radius))
    fill = RGB[figure.colour]
    if figure.shape == "circle":
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    elif figure.shape == "ring":
        box = (x - radius, y - radius, x + radius, y + radius)
        canvas.ellipse(box, outline=fill, width=round(radius * 0.38))
    elif figure.shape == "cross":
        arm = radius * 0.32
        canvas.rectangle((x - radius, y - arm, x + radius, y + arm), fill=fill)
        canvas.rectangle((x - arm, y - radius, x + arm, y + radius), fill=fill)
    else:
        canvas.polygon([(x + radius * u, y + radius * v) for u, v in _outline(figure.shape)], fill)


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a polygon within the unit circle, the first one on top."""
    reach = {"square": (1.0,) * 4, "triangle": (1.0,) * 3, "star": (1.0, 0.42) * 5}[shape]
    turn = 2 * math.pi / len(reach)
    start = turn / 2 if shape == "square" else 0.0  # a square stands on a side, not on a corner
    return [
        (r * math.sin(start + i * turn), -r * math.cos(start + i * turn))
        for i, r in enumerate(reach)
    ]
