"""One step of a run on its own data, for those who measure it.

step, batches = first_step(load_config("configs/demo.yaml"))
"""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor

from trimodal.batch import Batch
from trimodal.config import RunConfig
from trimodal.training.feed import StepFeed
from trimodal.training.gradients import StepGradients
from trimodal.training.trainer import build_dataset, build_processor, new_model


def first_step(config: RunConfig) -> tuple[Callable[[], list[Tensor]], list[Batch]]:
    """What computes the gradients of the first step of a run on the CPU, and its micro-batches.

    Raises:
        DataError: what the configuration names cannot be read.
    """
    processor = build_processor(config)
    batches = StepFeed(build_dataset(config, processor), config).batches(0)
    torch.manual_seed(config.seed)
    model = new_model(config, processor).train()
    gradients = StepGradients(Accelerator(cpu=True), model, config)

    def step() -> list[Tensor]:
        model.zero_grad()
        gradients(batches, 0)
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    return step, batches
