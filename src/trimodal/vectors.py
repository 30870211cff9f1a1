"""What can be done with embeddings without a model.

short = cut(vectors_NE, 64)
"""

import numpy as np


def cut(vectors: np.ndarray, dim: int) -> np.ndarray:
    """The first `dim` numbers of each vector, brought back to unit norm (Kusupati et al., 2022)."""
    prefix = vectors[..., :dim]
    return prefix / np.linalg.norm(prefix, axis=-1, keepdims=True)
