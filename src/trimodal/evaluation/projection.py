"""All modalities of a manifest on one plane.

points = project(rows, vectors)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from trimodal.data import Row
from trimodal.evaluation.embedding import SINGLES, present
from trimodal.streams import permutation

MOST_ROWS = 600
MOST_COLOURS = 10
SIZE = 1000.0
PERPLEXITY = 12.0
"""Below the size of most labels' clusters, so that these are not drawn as dots."""


@dataclass(frozen=True)
class Point:
    """One vector on the plane, 0 to `SIZE` both ways."""

    x: float
    y: float
    modality: str
    colour: int
    """Index of its label among `Projection.labels`; `MOST_COLOURS` for all others."""
    title: str


@dataclass(frozen=True)
class Projection:
    """Vectors laid out so that near ones stay near."""

    points: list[Point]
    labels: list[str]
    """The commonest, each with a colour."""
    centres: list[tuple[float, float, str]]
    """Where the names of labels stand: at the median of its points of a modality, once if near."""
    num_rows: int
    others: bool
    """Whether there are points without a colour of their own."""


def project(rows: Sequence[Row], vectors: Mapping[str, np.ndarray]) -> Projection | None:
    """t-SNE (van der Maaten and Hinton, 2008) of up to 600 rows, by cosine distance.

    Args:
        rows: N.
        vectors: `image`, `text` and `speech` (N, E), NaN where absent.

    Returns:
        None if there are too few vectors for a picture to mean anything.
    """
    chosen = permutation(len(rows), "projection")[:MOST_ROWS]
    # equal vectors, as those of equal texts, would push each other apart
    which = {
        (name, vectors[name][i].tobytes()): (int(i), name)
        for name in ("image", "speech", "text")  # the fewest last, so that they are seen
        for i in chosen[present(vectors[name])[chosen]]
    }.values()
    if len(which) < 10:
        return None
    with threadpool_limits(1):  # one thread gives the same map on every machine
        plane = TSNE(
            metric="cosine",
            init="pca",
            perplexity=min(PERPLEXITY, (len(which) - 1) / 3),
            random_state=0,
        ).fit_transform(np.stack([vectors[name][i] for i, name in which]).astype(np.float64))
    low, span = plane.min(axis=0), float(np.ptp(plane, axis=0).max()) or 1.0
    centred = (plane - low - np.ptp(plane, axis=0) / 2) / span
    plane = (centred * 0.94 + 0.5) * SIZE
    counts = Counter(rows[i].label for i, _ in which if rows[i].label is not None)
    labels = sorted(str(label) for label, _ in counts.most_common(MOST_COLOURS))
    points = [
        Point(
            round(float(x), 1),
            round(float(y), 1),
            name,
            _colour(rows[i], labels),
            ", ".join(part for part in (name, rows[i].label, rows[i].id) if part),
        )
        for (i, name), (x, y) in zip(which, plane, strict=True)
    ]
    return Projection(
        points,
        labels,
        _centres(points, labels),
        len(chosen),
        any(point.colour == MOST_COLOURS for point in points),
    )


def _colour(row: Row, labels: Sequence[str]) -> int:
    return labels.index(row.label) if row.label in labels else MOST_COLOURS


def _centres(points: Sequence[Point], labels: Sequence[str]) -> list[tuple[float, float, str]]:
    centres: list[tuple[float, float, str]] = []
    for colour, label in enumerate(labels):
        own: list[np.ndarray] = []
        for name in SINGLES:
            places = [(p.x, p.y) for p in points if p.colour == colour and p.modality == name]
            if not places:
                continue
            place = np.median(places, axis=0)
            if all(np.linalg.norm(place - other) > SIZE / 10 for other in own):
                own.append(place)
        centres += [(round(float(x), 1), round(float(y), 1), label) for x, y in own]
    return centres
