"""Single steps of a run, for those who measure them.

step, batches = first_step(load_config("configs/demo.yaml"))
"""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from trimodal.batch import Batch, to_device
from trimodal.config import RunConfig
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.schema import to_dict
from trimodal.training.building import build_dataset, build_processor, new_model
from trimodal.training.feed import StepFeed
from trimodal.training.gradients import StepGradients
from trimodal.training.optimizer import build_optimizer


def first_step(config: RunConfig) -> tuple[Callable[[], list[Tensor]], list[Batch]]:
    """What computes the gradients of the first step of a run on the CPU, and its micro-batches.

    Raises:
        DataError: what the configuration names cannot be read.
    """
    processor = build_processor(config)
    batches = StepFeed(build_dataset(config, processor), config).batches(0)
    torch.manual_seed(config.seed)
    model = new_model(config, processor).train()
    return Probe(config, model, torch.device("cpu")).gradients(batches), batches


class Probe:
    """A model that is trained on given batches, without data, checkpoints or files."""

    def __init__(self, config: RunConfig, model: TrimodalModel, device: torch.device) -> None:
        self.model = model
        # a process has one precision, unless its state is dropped between two probes
        AcceleratorState._reset_state(reset_partial_state=True)
        precision = "bf16" if config.training.precision == "bf16" else "no"
        accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision)
        self.device = accelerator.device
        self.optimizer = build_optimizer(model, config.training)
        self._compute = StepGradients(accelerator, accelerator.prepare(model), config)

    @classmethod
    def new(cls, config: RunConfig, device: torch.device) -> "Probe":
        """A new model of the configured architecture, which needs no tokenizers."""
        torch.manual_seed(config.seed)
        with device:
            model = TrimodalModel(TrimodalConfig(architecture=to_dict(config.model)))
        return cls(config, model.train(), device)

    def gradients(self, batches: Sequence[Batch]) -> Callable[[], list[Tensor]]:
        """What computes the gradients of all parameters on these micro-batches."""
        placed = [to_device(batch, self.device) for batch in batches]

        def step() -> list[Tensor]:
            self.model.zero_grad()
            self._compute(placed)
            return [p.grad.clone() for p in self.model.parameters() if p.grad is not None]

        return step

    def train(self, batches: Sequence[Batch]) -> float:
        """One step of the optimizer at its full rate; the loss before it."""
        placed = [to_device(batch, self.device) for batch in batches]
        losses = self._compute(placed)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses["loss"]
