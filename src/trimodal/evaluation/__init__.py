"""Measuring a model: retrieval, zero-shot classification, geometry, and the report of a run."""

from trimodal.evaluation.embedding import embed_rows, load_model
from trimodal.evaluation.evaluate import evaluate
from trimodal.evaluation.generation_table import format_generation
from trimodal.evaluation.resynthesis import format_resynthesis
from trimodal.evaluation.table import format_table

__all__ = [
    "embed_rows",
    "evaluate",
    "format_generation",
    "format_resynthesis",
    "format_table",
    "load_model",
]
