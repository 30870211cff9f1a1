"""The Fréchet distance between two clouds of feature vectors (Heusel et al., 2017).

frechet_distance(judge_features_of_real, judge_features_of_generated)
"""

import numpy as np


def frechet_distance(a_ND: np.ndarray, b_MD: np.ndarray) -> float:
    """|mean - mean|^2 + tr(A + B - 2 (A B)^(1/2)) of Gaussians with their moments, in float64.

    A and B are the sample covariances as they are, nothing is added to them. The trace of
    (A B)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2), which needs no inverse: with
    fewer vectors than dimensions it is exact too, though the distance itself is then biased
    upwards, so only numbers of equal N and M can be compared. A single vector has covariance 0.

    Raises:
        ValueError: no vectors, or vectors of different lengths.
    """
    if a_ND.ndim != 2 or b_MD.ndim != 2 or a_ND.shape[1] != b_MD.shape[1]:
        raise ValueError(f"shapes {a_ND.shape} and {b_MD.shape} are not those of two clouds")
    if not len(a_ND) or not len(b_MD):
        raise ValueError("a cloud without vectors is nowhere")
    a_D, a_DD = _moments(a_ND)
    b_D, b_DD = _moments(b_MD)
    common = np.linalg.svd(_root(a_DD) @ _root(b_DD), compute_uv=False).sum()
    apart = np.square(a_D - b_D).sum() + np.trace(a_DD) + np.trace(b_DD) - 2 * common
    return max(0.0, float(apart))


def _moments(vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D)."""
    vectors_ND = vectors_ND.astype(np.float64)
    mean_D = vectors_ND.mean(axis=0)
    centred_ND = vectors_ND - mean_D
    return mean_D, centred_ND.T @ centred_ND / max(1, len(vectors_ND) - 1)


def _root(matrix_DD: np.ndarray) -> np.ndarray:
    """The symmetric square root; what rounding made negative is 0."""
    value_D, vector_DD = np.linalg.eigh(matrix_DD)
    return (vector_DD * np.sqrt(value_D.clip(min=0))) @ vector_DD.T
