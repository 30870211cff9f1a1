"""Losses are pure functions, objectives hold policy, a config names and weights them."""

from trimodal.objectives.contrastive import Embeddings, contrastive, of_batches
from trimodal.objectives.matching import draw_tuples, pack_tuples
from trimodal.objectives.planning import Plan, Wish, draw_hidden_codes, plan_views
from trimodal.objectives.predicted import LOSSES, NAMES, predicted, predicted_counts, weights

__all__ = [
    "LOSSES",
    "NAMES",
    "Embeddings",
    "Plan",
    "Wish",
    "contrastive",
    "draw_hidden_codes",
    "draw_tuples",
    "of_batches",
    "pack_tuples",
    "plan_views",
    "predicted",
    "predicted_counts",
    "weights",
]
