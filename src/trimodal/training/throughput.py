"""Tokens a second, model-FLOPs utilisation, and the threads that reach them.

flops = training_flops(model, batches)
"""

import functools
import os
import time
from collections.abc import Sequence

import torch
from torch import nn

from trimodal.batch import Batch, TokenBatch
from trimodal.models import TrimodalModel
from trimodal.models.frontends import ConvFrontend
from trimodal.models.layers import Transformer
from trimodal.models.stem import ConvolutionalStem

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bf16 peaks that the vendor states."""


def training_flops(model: TrimodalModel, batches: Sequence[Batch]) -> float:
    """FLOPs of a forward and backward over the blocks, recomputation not counted.

    Six for each weight and token, twelve for each width, layer and pair of tokens that attend
    (Chowdhery et al., 2022, appendix B).
    """
    total = 0.0
    for batch in batches:
        for modality, media in batch.media.items():
            encoder = model.encoder(modality)
            total += _stack_flops(encoder.transformer, media.tokens)
            total += 6.0 * _products(encoder.frontend) * media.tokens.num_tokens
        if batch.views is not None:
            total += _stack_flops(model.trunk, batch.views.tokens)
    return total


def _stack_flops(stack: Transformer, tokens: TokenBatch) -> float:
    table = tokens.segments.table_S5.to(torch.float64)
    pairs = float(((table[:, 1] - table[:, 0]) * (table[:, 3] - table[:, 2])).sum())
    attention = 12.0 * stack.config.width * stack.config.depth * pairs
    return 6.0 * _weights(stack) * tokens.num_tokens + attention


def computing_threads(loaders: int) -> int:
    """Threads that a process computes with on a CPU: at most the cores its loaders leave.

    Every operation waits for its slowest thread, so one that shares its core holds up all.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = len(os.sched_getaffinity(0)) // processes
    return max(1, min(torch.get_num_threads(), cores - loaders))


def _products(frontend: nn.Module) -> int:
    """Multiplications a token."""
    extra = 0
    if isinstance(frontend, ConvolutionalStem):
        extra = frontend.products()
    elif isinstance(frontend, ConvFrontend):
        extra = frontend.first.weight.numel()  # it has two rows a token
    return _weights(frontend) + extra


def _weights(module: nn.Module) -> int:
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The stated peak of a known GPU in bf16, else what a large matrix product reaches here."""
    return _peak(device, dtype, torch.get_num_threads())


@functools.cache
def _peak(device: torch.device, dtype: torch.dtype, _: int) -> float:
    """That of a process with so many threads, once."""
    if device.type == "cuda" and dtype is torch.bfloat16:
        words = torch.cuda.get_device_name(device).replace("-", " ").split()
        for key, peak in PEAK_FLOPS.items():
            if key in words:
                return peak
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        product = a @ a
        product.flatten()[0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
