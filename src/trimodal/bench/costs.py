"""What a training step of a configuration takes, from its model without memory.

cost = Cost.of(load_config("configs/base.yaml"))
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trimodal.batch import Batch, Prediction, TokenBatch
from trimodal.bench.synthetic import SyntheticFeed
from trimodal.config import RunConfig, TransformerConfig
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.models.heads import BEST_RQ_CODES
from trimodal.models.layers import Block, Transformer
from trimodal.schema import to_dict
from trimodal.training.throughput import training_flops
from trimodal_kernels import Segments
from trimodal_kernels.dispatch import VARIABLE

SAMPLES = 64
"""Synthetic samples over which a step's tokens are counted."""
LENGTH = 128
"""Tokens of a segment on which activations are measured; no number of a token depends on it."""


@dataclass(frozen=True)
class Cost:
    """Numbers of a model and of a mean sample."""

    parameters: int
    block: int
    """Parameters of the largest block: what a sharded model gathers at once."""
    outside: int
    """Parameters outside all blocks."""
    tokens: float
    """Of a sample, in the encoders and in the trunk."""
    flops: float
    """Of a sample, forward and backward, nothing computed twice."""
    attention: float
    """The share of them that belongs to pairs of tokens."""
    activations: float
    """Bytes that the blocks keep for the backward pass in bf16, a token of the mean stack."""
    recomputed: float
    """The same with activation checkpointing."""

    @classmethod
    def of(cls, config: RunConfig) -> "Cost":
        """The costs of a configuration on synthetic samples of three modalities."""
        with torch.device("meta"):
            model = TrimodalModel(TrimodalConfig(architecture=to_dict(config.model)))
        whole = replace(config, training=replace(config.training, token_budget=10**12))
        batches = SyntheticFeed(whole, SAMPLES).batches(0)
        stacks = list(_stacks(model, batches))
        tokens = sum(batch.num_tokens for _, batch in stacks)
        depths = [batch.num_tokens * stack.config.depth for stack, batch in stacks]
        kept = [saved_bytes(stack.config) for stack, _ in stacks]
        inputs = [4 * stack.config.width for stack, _ in stacks]
        sizes = [_size(m) for m in model.modules() if isinstance(m, Block)]
        flops = training_flops(model, batches) + head_flops(model, batches)
        return cls(
            parameters=_size(model),
            block=max(sizes),
            outside=_size(model) - sum(sizes),
            tokens=tokens / SAMPLES,
            flops=flops / SAMPLES,
            attention=sum(_pair_flops(*stack) for stack in stacks) / flops,
            activations=sum(a * b for a, b in zip(depths, kept, strict=True)) / tokens,
            recomputed=sum(a * b for a, b in zip(depths, inputs, strict=True)) / tokens,
        )


def _stacks(
    model: TrimodalModel, batches: Sequence[Batch]
) -> Iterator[tuple[Transformer, TokenBatch]]:
    """The blocks that tokens go through, with them."""
    for batch in batches:
        for modality, media in batch.media.items():
            yield model.encoder(modality).transformer, media.tokens
        if batch.views is not None:
            yield model.trunk, batch.views.tokens


def _pair_flops(stack: Transformer, tokens: TokenBatch) -> float:
    table = tokens.segments.table_S5.double()
    pairs = float(((table[:, 1] - table[:, 0]) * (table[:, 3] - table[:, 2])).sum())
    return 12.0 * stack.config.width * stack.config.depth * pairs


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def head_flops(model: TrimodalModel, batches: Sequence[Batch]) -> float:
    """FLOPs of a forward and backward outside frontends and blocks, matching left out.

    The ways into the trunk and the embedding, and the predictions of the ids and features that
    `batches` ask for; six for each weight and row, as in `training_flops`.
    """
    total = 0
    for batch in batches:
        for modality, media in batch.media.items():
            encoder = model.encoder(modality)
            total += encoder.to_trunk.weight.numel() * media.tokens.num_tokens
            total += encoder.embedding.projection.weight.numel() * media.num_media
            if encoder.summary is not None:
                total += encoder.summary.weight.numel() * media.num_media
        if batch.views is not None:
            views = batch.views.tokens.cu_seqlens.numel() - 1
            total += model.fusion.projection.weight.numel() * views
            for name, prediction in batch.views.predictions.items():
                total += _predicted(model, name, prediction)
    return 6.0 * total


def _predicted(model: TrimodalModel, name: str, prediction: Prediction) -> int:
    """Multiplications of one prediction's head."""
    width, target = model.architecture.trunk.width, prediction.target
    rows, kind = prediction.token_K.numel(), name.partition("_")[0]
    if kind == "length":
        outputs = 2
    elif kind == "quantised":
        outputs = model.architecture.best_rq_codebooks * BEST_RQ_CODES
    elif target.is_floating_point():
        outputs = target.shape[1]
    else:
        rows = target.numel()  # of the codes of a token, each
        outputs = model.vocabulary.range_of(prediction.modality).size + (kind == "causal")
    return rows * width * (width + outputs)


def saved_bytes(config: TransformerConfig) -> float:
    """Bytes that one block keeps for the backward pass, a token, in bf16 with the GPU's kernels.

    Counted on a block whose tensors have shapes and no memory. What does not grow with the tokens,
    such as weights in bf16, and what all blocks share are left out.
    """
    few, many = 2 * LENGTH, 6 * LENGTH
    once, twice = (
        _saved(stack, many) - _saved(stack, few)
        for stack in (replace(config, depth=depth, dropout=0.0) for depth in (1, 2))
    )
    return (twice - once) / (many - few)


def _saved(config: TransformerConfig, size: int) -> int:
    """Bytes that are kept of a forward over `size` tokens."""
    with _kernels_of_a_gpu(), FakeTensorMode(allow_non_fake_inputs=True):
        stack = Transformer(config)
        segments = Segments.from_lengths([LENGTH] * (size // LENGTH))
        zeros_T = torch.zeros(size, dtype=torch.int64)
        bounds = torch.arange(0, size + 1, LENGTH)
        tokens = TokenBatch(zeros_T[:, None].expand(-1, 2), zeros_T, zeros_T, bounds, segments)
        x_TD = torch.zeros(size, config.width, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            return kept_bytes(stack, x_TD, tokens)


def kept_bytes(stack: Transformer, x_TD: Tensor, tokens: TokenBatch) -> int:
    """Bytes of what a forward of a stack keeps, each once, its parameters left out."""
    own = {parameter.untyped_storage()._cdata for parameter in stack.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        if x.untyped_storage()._cdata not in own:
            kept[x.untyped_storage()._cdata] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        stack(x_TD, tokens)
    return sum(x.untyped_storage().nbytes() for x in kept.values())


@contextmanager
def _kernels_of_a_gpu() -> Iterator[None]:
    former = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "triton"
    try:
        yield
    finally:
        if former is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = former
