"""Measuring a model: retrieval, zero-shot classification, geometry, and the report of a run."""

from trimodal.evaluation.embedding import embed_rows, load_model
from trimodal.evaluation.evaluate import evaluate
from trimodal.evaluation.table import format_table

__all__ = ["embed_rows", "evaluate", "format_table", "load_model"]
