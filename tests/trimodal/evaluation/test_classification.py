import numpy as np
import pytest

from trimodal.evaluation.classification import MOST_CLASSES, classification_scores


def test_values_by_hand() -> None:
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    scores = classification_scores(predicted, labels, ["a", "b", "c"])
    assert scores["accuracy"] == 0.75
    assert scores["macro_f1"] == pytest.approx((2 * 2 / 5 + 2 * 1 / 3) / 2)  # c never occurs
    assert scores["chance"] == pytest.approx(1 / 3)
    assert scores["per_class"] == {"a": pytest.approx(2 / 3), "b": 1.0}
    assert scores["confusion"] == {
        "labels": ["a", "b", "c"],
        "matrix": [[2, 1, 0], [0, 1, 0], [0, 0, 0]],
    }


def test_a_matrix_of_many_classes_is_left_out() -> None:
    classes = [str(i) for i in range(MOST_CLASSES + 1)]
    labels = np.arange(MOST_CLASSES + 1)
    scores = classification_scores(labels, labels, classes)
    assert scores["accuracy"] == 1
    assert "confusion" not in scores
