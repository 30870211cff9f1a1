"""Rows about whole training steps on a GPU, on ragged samples of three modalities.

rows = step_rows(load_config("configs/base.yaml"), torch.device("cuda"), rounds=5)
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from trimodal.bench.padded import Layouts, padded
from trimodal.bench.ragged import difference
from trimodal.bench.synthetic import SyntheticFeed
from trimodal.bench.timing import Row, compare, medians
from trimodal.config import RunConfig
from trimodal.errors import NumericError
from trimodal.training.probe import Probe
from trimodal.training.throughput import peak_flops, training_flops

GATES = {"padded SDPA": 1.8, "bucketed SDPA, compiled": 1.15}
UTILISATION = {768: 0.33, 1024: 0.42}
"""Share of the stated peak that a step must use, by the width of the trunk."""
TOLERANCE = 5e-2
"""Largest relative difference of all gradients, in bfloat16, that packing may make."""
SAMPLES = 64
BUCKETS = 8


def step_rows(
    config: RunConfig, device: torch.device, rounds: int, num_samples: int = SAMPLES
) -> list[Row]:
    """Gradients of one step, packed, padded, and in compiled buckets; then its utilisation.

    Raises:
        NumericError: packed and padded gradients differ.
    """
    # one micro-batch: the second forward of several would be the same for all ways
    whole = replace(config, training=replace(config.training, token_budget=10**9))
    batches = SyntheticFeed(whole, num_samples).batches(0)
    probe = Probe.new(config, device)
    step = probe.gradients(batches)
    one, many = Layouts(), Layouts()
    contexts: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "ours": nullcontext,
        "padded SDPA": lambda: padded(layouts=one),
        "bucketed SDPA, compiled": lambda: padded(buckets=BUCKETS, compiled=True, layouts=many),
    }
    ways = {name: _within(context, step) for name, context in contexts.items()}
    wanted = _joined(ways["ours"]())
    for name in GATES:
        error = difference((_joined(ways[name]()),), (wanted,))
        if not error <= TOLERANCE:
            raise NumericError(f"the training step: {name} and packed differ by {error:.1e}")
    times = medians(ways, rounds, device)
    width = config.model.trunk.width
    label = f"training step of width {width}, {num_samples} ragged samples"
    rows = [
        compare(f"{label}, against {name}", times["ours"], times[name], gate)
        for name, gate in GATES.items()
    ]
    dtype = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
    achieved = training_flops(probe.model, batches) / (times["ours"] / 1e3)
    share = achieved / peak_flops(device, dtype)
    wanted_share = UTILISATION.get(width)
    ratio = share / wanted_share if wanted_share else share
    gate = 1.0 if wanted_share else None
    return [
        *rows,
        Row(
            f"{label}, model-FLOPs utilisation", ratio, gate, share, wanted_share or 1.0, "of peak"
        ),
    ]


def _within(
    context: Callable[[], AbstractContextManager[None]], step: Callable[[], list[Tensor]]
) -> Callable[[], list[Tensor]]:
    def run() -> list[Tensor]:
        with context():
            return step()

    return run


def _joined(gradients: list[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten().float() for gradient in gradients])
