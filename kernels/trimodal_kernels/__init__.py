"""Packed operations of trimodal: pure torch here, one module per op."""

from trimodal_kernels.attention import packed_attention, turn, turn_pair
from trimodal_kernels.contrastive import (
    info_nce,
    info_nce_two_sided,
    sigmoid_contrast,
    sigmoid_contrast_two_sided,
)
from trimodal_kernels.gated import gated
from trimodal_kernels.linear_cross_entropy import linear_cross_entropy
from trimodal_kernels.linear_cross_entropy.scores import Scores
from trimodal_kernels.nearest import nearest
from trimodal_kernels.pooling import segment_mean
from trimodal_kernels.segments import Kind, Segments

__all__ = [
    "Kind",
    "Scores",
    "Segments",
    "gated",
    "info_nce",
    "info_nce_two_sided",
    "linear_cross_entropy",
    "nearest",
    "packed_attention",
    "segment_mean",
    "sigmoid_contrast",
    "sigmoid_contrast_two_sided",
    "turn",
    "turn_pair",
]
