"""The seven mixes of segments that attention is measured on, and inputs of their shapes.

lengths = draw_lengths("captions", num_tokens=50_000, seed=3)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trimodal_kernels import Segments

CONTEXT = 77
"""Pieces of the longest caption."""
MISSING = 0.25
"""How often a sample of a single stream lacks a modality."""
HEADS, HEAD_DIM = 12, 64


def _native(rng: np.random.Generator) -> int:
    """Patches of a picture at its own size and shape, 64 to 256."""
    return int(rng.integers(64, 257))


def caption_length(rng: np.random.Generator) -> int:
    """Pieces of a caption, 8 to 77, 18 on average."""
    return int(np.clip(np.round(8 + rng.gamma(1.1, 9.2)), 8, CONTEXT))


def _spoken(rng: np.random.Generator) -> int:
    """Tokens of a caption that is read aloud, 50 to 500, 220 on average."""
    return int(np.clip(np.round(50 + rng.gamma(2.0, 85.0)), 50, 500))


def _read_aloud(rng: np.random.Generator) -> int:
    """Tokens of sentences of a book, 25 a second, 1.5 to 35 s, most of 10 to 16."""
    return int(25 * np.clip(rng.normal(12.3, 4.0), 1.5, 35.0))


def _single_stream(rng: np.random.Generator) -> int:
    """A picture, a caption and speech of one sample behind each other, any of them missing."""
    lengths = (_native(rng), caption_length(rng), _spoken(rng))
    present = rng.random(3) >= MISSING
    present[int(rng.integers(3))] = True
    return sum(length for length, here in zip(lengths, present, strict=True) if here)


def _shared(rng: np.random.Generator) -> int:
    """A picture, a caption or speech."""
    return (_native, caption_length, _spoken)[int(rng.integers(3))](rng)


WORKLOADS: dict[str, Callable[[np.random.Generator], int]] = {
    "fixed images": lambda _: 197,
    "native-size images": _native,
    "captions": caption_length,
    "spoken captions": _spoken,
    "long speech": _read_aloud,
    "single stream": _single_stream,
    "shared trunk": _shared,
}
"""By name, the length of a segment; each sees itself in full."""


def draw_lengths(workload: str, num_tokens: int, seed: int) -> list[int]:
    """Segments of about `num_tokens` tokens in all, at least two of them."""
    rng = np.random.default_rng((seed, *workload.encode()))
    lengths: list[int] = []
    total = 0
    while total < num_tokens or len(lengths) < 2:
        lengths.append(WORKLOADS[workload](rng))
        total += lengths[-1]
    return lengths


@dataclass(frozen=True)
class Problem:
    """Queries, keys, values and the gradient of the output, (T, H, K) each, of packed segments."""

    lengths: list[int]
    inputs: tuple[Tensor, Tensor, Tensor]
    grad: Tensor
    segments: Segments

    @classmethod
    def draw(cls, lengths: list[int], device: torch.device, dtype: torch.dtype) -> "Problem":
        """Random numbers; the plan of the segments is made here, as a loader's process does."""
        shape = (sum(lengths), HEADS, HEAD_DIM)
        q, k, v, grad = (torch.randn(shape, device=device, dtype=dtype) for _ in range(4))
        segments = Segments.from_lengths(lengths).to(device)
        segments.prepare(HEADS)
        return cls(lengths, (q, k, v), grad, segments)
