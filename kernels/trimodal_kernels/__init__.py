"""Packed operations of trimodal: pure torch here, one module per op."""

from trimodal_kernels.attention import packed_attention
from trimodal_kernels.pooling import segment_mean
from trimodal_kernels.segments import Kind, Segments

__all__ = ["Kind", "Segments", "packed_attention", "segment_mean"]
