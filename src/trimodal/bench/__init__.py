"""Benchmarks: ratios to named peers, each behind a check that both compute the same.

rows = cpu_rows(rounds=9); print(format_rows(rows))
"""

from trimodal.bench.rows import cpu_rows, format_rows, gpu_rows, tried
from trimodal.bench.timing import Row

__all__ = ["Row", "cpu_rows", "format_rows", "gpu_rows", "tried"]
