"""The shape of the embedding: how near pairs are, how evenly spread, how far modalities lie apart.

gap(image_NE, text_NE)
"""

import numpy as np

MOST_POINTS = 2048
"""Uniformity is taken over this many vectors at most, evenly spaced; its cost is quadratic."""


def alignment(a_NE: np.ndarray, b_NE: np.ndarray) -> float:
    """Mean squared distance of paired unit vectors, 0 to 4 (Wang and Isola, 2020, alpha 2)."""
    return float(np.mean(np.sum((a_NE - b_NE) ** 2, axis=1)))


def uniformity(z_NE: np.ndarray) -> float:
    """Log of the mean Gaussian potential over pairs, -8 to 0 (Wang and Isola, 2020, t 2).

    Lower is more even; N must be at least 2.
    """
    stride = -(-len(z_NE) // MOST_POINTS)
    z_NE = z_NE[::stride].astype(np.float64)
    upper = np.triu_indices(len(z_NE), k=1)
    squared = np.maximum(0.0, 2.0 - 2.0 * (z_NE @ z_NE.T)[upper])
    return float(np.log(np.mean(np.exp(-2.0 * squared))))


def gap(a_NE: np.ndarray, b_ME: np.ndarray) -> float:
    """Distance of the two modalities' mean vectors, 0 to 2 (Liang et al., 2022)."""
    return float(np.linalg.norm(a_NE.mean(axis=0) - b_ME.mean(axis=0)))
