"""An exponential moving average of the weights, in fp32, of which a run can go on exactly.

average = WeightAverage(model, config.training.ema)
average.update()
with average.applied(): model.save_pretrained(folder)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trimodal.config import AverageConfig
from trimodal.training.sharding import own, read_own

STEM = "average"
"""Of the checkpoint's file."""
UPDATES = "updates"
"""The key of their number; no parameter of a model has a name without a dot and this one."""


class WeightAverage:
    """What is trained, averaged over the updates; without a configuration it does nothing.

    An update is a function of the weights alone, so each rank has the average of what it holds:
    the same of whole parameters, its own part of sharded ones.
    """

    def __init__(self, model: nn.Module, config: AverageConfig | None) -> None:
        self.config = config
        self.updates = 0
        """How many are averaged."""
        self._trained = {
            name: parameter
            for name, parameter in model.named_parameters()
            if config is not None and parameter.requires_grad
        }
        self._average: dict[str, Tensor] = {}
        self._begin()

    def _begin(self) -> None:
        self.updates = 0
        self._average = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in self._trained.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an update of the optimizer (Polyak and Juditsky, 1992)."""
        if self.config is None:
            return
        self.updates += 1
        decay = min(self.config.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self._trained.items():
            self._average[name].lerp_(parameter.detach().float(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the average in the model; what was trained comes back to the last bit."""
        former = {name: parameter.detach().clone() for name, parameter in self._trained.items()}
        self._fill(self._average)
        try:
            yield
        finally:
            self._fill(former)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._trained.items():
            parameter.copy_(values[name])

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint has to hold, by file; nothing without a configuration."""
        if self.config is None:
            return {}
        average = {name: own(x) for name, x in self._average.items()}
        return {STEM: {**average, UPDATES: torch.tensor(self.updates)}}

    def restore(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on where `tensors` was taken; a checkpoint of a run without an average begins one."""
        if self.config is None:
            return
        if STEM not in files:
            self._begin()
            return
        saved = files[STEM]
        self.updates = int(saved[UPDATES])
        for name, average in self._average.items():
            average.copy_(read_own(saved, name, average))
