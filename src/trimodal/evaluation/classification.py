"""Scores of decisions among named classes.

classification_scores(predicted_N, label_N, ("cat", "dog"))["accuracy"]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_CLASSES = 100
"""A confusion matrix of more classes is left out: nobody could read it, and it is quadratic."""


def classification_scores(
    predicted_N: np.ndarray, label_N: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Compare decisions with labels, both indices into `classes`; N is at least 1.

    Returns:
        `accuracy`, `macro_f1` (mean over the classes that occur as label or decision), `chance`
        (accuracy of guessing evenly), `samples`, `per_class` accuracy of each class that has
        samples, and `confusion` with its `labels` and `matrix`, true class by row and decided
        class by column.
    """
    size = len(classes)
    matrix_CC = np.zeros((size, size), dtype=np.int64)
    np.add.at(matrix_CC, (label_N, predicted_N), 1)
    right_C, true_C, chosen_C = matrix_CC.diagonal(), matrix_CC.sum(axis=1), matrix_CC.sum(axis=0)
    occurs_C = true_C + chosen_C > 0
    f1_C = 2 * right_C[occurs_C] / (true_C + chosen_C)[occurs_C]
    scores: dict[str, Any] = {
        "accuracy": float(right_C.sum() / len(label_N)),
        "macro_f1": float(f1_C.mean()),
        "chance": 1 / size,
        "samples": len(label_N),
        "per_class": {
            name: float(right_C[i] / true_C[i]) for i, name in enumerate(classes) if true_C[i]
        },
    }
    if size <= MOST_CLASSES:
        scores["confusion"] = {"labels": list(classes), "matrix": matrix_CC.tolist()}
    return scores
