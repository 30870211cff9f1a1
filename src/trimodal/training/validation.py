"""How well a model in training finds held-out samples.

metrics |= validate(model, read_manifest("val.jsonl"), token_budget=16_384)
"""

from collections.abc import Sequence

from trimodal.data import Row
from trimodal.evaluation.embedding import embed_rows
from trimodal.evaluation.evaluate import DIRECTIONS, retrieval, shape_of
from trimodal.models import TrimodalModel
from trimodal.training.reporting import VALIDATION


def validate(model: TrimodalModel, rows: Sequence[Row], token_budget: int) -> dict[str, float]:
    """What held-out rows say of a model.

    Returns:
        R@1 by `validation/QUERY->GALLERY`, for the directions that the rows have, and the shape of
        the embedding by `embedding/MEASURE/MODALITIES`.

    Raises:
        DataError: a medium cannot be used.
        NumericError: the model gives numbers that are not finite.
    """
    vectors = embed_rows(model, rows, token_budget=token_budget)
    found = retrieval(rows, vectors, DIRECTIONS, "group")
    scores = {f"{VALIDATION}{direction}": float(score["R@1"]) for direction, score in found.items()}
    for measure, values in shape_of(vectors).items():
        scores |= {f"embedding/{measure}/{name}": value for name, value in values.items()}
    return scores
