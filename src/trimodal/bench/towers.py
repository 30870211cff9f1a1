"""Rows about whole stacks on a CPU: packed against padded.

rows = [*text_tower_rows(rounds=5), *training_step_rows(rounds=5)]
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from trimodal.batch import Batch, Medium, Modality, pack_media
from trimodal.bench.padded import Layouts, padded
from trimodal.bench.timing import Row, compare, medians
from trimodal.bench.workloads import CONTEXT, caption_length
from trimodal.config import TransformerConfig
from trimodal.errors import NumericError
from trimodal.models.layers import Transformer

TOLERANCE = 1e-4
"""Largest relative difference of gradients that packing may make."""


def caption_lengths(count: int, seed: int = 0) -> list[int]:
    """Of captions, 8 to 77 pieces, 18 on average."""
    rng = np.random.default_rng(seed)
    return [caption_length(rng) for _ in range(count)]


def text_tower_rows(rounds: int, count: int = 64) -> list[Row]:
    """Two layers of width 512, forward and backward."""
    torch.manual_seed(0)
    stack = Transformer(TransformerConfig(width=512, depth=2, num_heads=8))
    lengths = caption_lengths(count)
    empty = torch.zeros(0, dtype=torch.int64)
    media = [Medium(Modality.TEXT, empty.new_zeros(n), n, (n, 1)) for n in lengths]
    tokens = pack_media(media).tokens
    x_TD, weight_TD = torch.randn(2, sum(lengths), 512).unbind(0)
    parameters = list(stack.parameters())

    def packed() -> list[Tensor]:
        loss = (stack(x_TD, tokens) * weight_TD).sum()
        return list(torch.autograd.grad(loss, parameters))

    def to(length: int | None) -> Callable[[], list[Tensor]]:
        def run() -> list[Tensor]:
            with padded(length):
                return packed()

        return run

    ways = {"packed": packed, "context": to(CONTEXT), "longest": to(None)}
    _check(packed(), ways["context"](), "the text tower")
    _check(packed(), ways["longest"](), "the text tower")
    times = medians(ways, rounds)
    mean = sum(lengths) / len(lengths)
    label = f"text tower, {mean:.0f} tokens on average, forward and backward"
    return [
        compare(f"{label}, against padded to {CONTEXT}", times["packed"], times["context"], 3.0),
        compare(
            f"{label}, against padded to {max(lengths)}", times["packed"], times["longest"], 1.8
        ),
    ]


def training_step_row(
    step: Callable[[], list[Tensor]], batches: Sequence[Batch], rounds: int
) -> Row:
    """The gradients of one training step, which `step` computes, packed and padded."""
    layouts = Layouts()

    def theirs() -> list[Tensor]:
        with padded(layouts=layouts):
            return step()

    _check(step(), theirs(), "the training step")
    times = medians({"ours": step, "theirs": theirs}, rounds)
    count = sum(batch.num_samples for batch in batches)
    name = f"training step of {count} samples, against padded batches"
    return compare(name, times["ours"], times["theirs"], 1.5)


def _check(ours: list[Tensor], theirs: list[Tensor], what: str) -> None:
    """Refuse to time what is not the same.

    Raises:
        NumericError: the gradients differ.
    """
    error = max(
        float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(ours, theirs, strict=True)
    )
    if error > TOLERANCE:
        raise NumericError(f"{what}: packed and padded gradients differ by {error:.1e}")
