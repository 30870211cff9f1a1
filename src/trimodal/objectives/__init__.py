"""Losses are pure functions, objectives hold policy, a config names and weights them."""

from trimodal.objectives.contrastive import Embeddings, contrastive, of_batches
from trimodal.objectives.masked import hidden_counts, masked
from trimodal.objectives.planning import plan_views

__all__ = ["Embeddings", "contrastive", "hidden_counts", "masked", "of_batches", "plan_views"]
