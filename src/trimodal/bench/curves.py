"""A short training run with the kernels and one with the reference, which must learn alike.

row = curves_row(load_config("configs/base.yaml"), torch.device("cuda"))
"""

import os
from dataclasses import replace
from unittest import mock

import torch

from trimodal.bench.synthetic import SyntheticFeed
from trimodal.bench.timing import Row
from trimodal.config import RunConfig, TransformerConfig
from trimodal.training.probe import Probe
from trimodal_kernels.dispatch import VARIABLE

STEPS = 25
SAMPLES = 24
TOLERANCE = 1e-2
"""Largest relative difference of the losses of one step, in fp32."""
SMALL = TransformerConfig(width=256, depth=3, num_heads=4)


def small(config: RunConfig, stack: TransformerConfig = SMALL) -> RunConfig:
    """The same objectives on a small model in fp32, without warm-up."""
    stacks = dict.fromkeys(("vision", "text", "speech", "trunk"), stack)
    model = replace(config.model, **stacks, embedding_dim=stack.width, matryoshka=())
    training = replace(
        config.training, precision="fp32", token_budget=1_000_000, learning_rate=1e-3
    )
    return replace(config, model=model, training=training)


def curve(
    config: RunConfig, device: torch.device, way: str, steps: int, samples: int
) -> list[float]:
    """The losses of a run whose operations are implemented as `TRIMODAL_KERNELS` would say."""
    feed = SyntheticFeed(config, samples)
    with mock.patch.dict(os.environ, {VARIABLE: way}):
        probe = Probe.new(config, device)
        return [probe.train(feed.batches(step)) for step in range(steps)]


def curves_row(
    config: RunConfig,
    device: torch.device,
    steps: int = STEPS,
    samples: int = SAMPLES,
) -> tuple[Row, dict[str, list[float]]]:
    """How near the two curves lie, and the curves; the row fails too if nothing is learnt."""
    config = small(config) if config.model.trunk.width > SMALL.width else config
    curves = {way: curve(config, device, way, steps, samples) for way in ("auto", "reference")}
    pairs = list(zip(*curves.values(), strict=True))
    apart = max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)
    learnt = sum(curves["auto"][-5:]) < 0.9 * sum(curves["auto"][:5])
    name = f"training for {steps} steps with and without kernels, largest difference of the loss"
    ratio = TOLERANCE / max(apart, 1e-12) if learnt else 0.0
    return Row(name, min(ratio, 1e3), 1.0, apart, TOLERANCE, "relative"), curves
