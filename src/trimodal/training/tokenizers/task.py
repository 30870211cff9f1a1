"""What the trainer asks of each kind of tokenizer.

for outcome in task.outcomes(step): (outcome.share * outcome.loss).backward()
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from trimodal.tokenizers.stored import Stored
from trimodal.training.tokenizers.config import AdversarialConfig, ScheduleConfig

M = TypeVar("M", bound=Stored)


@dataclass(frozen=True)
class Outcome:
    """One batch of a step."""

    loss: Tensor
    """Its mean over the batch."""
    share: float
    """Of the step's media that are in the batch."""
    real: Tensor
    """What a discriminator is shown."""
    fake: Tensor
    codes: Tensor | None = None
    """int64, any shape, those that stand for something."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Means over the batch."""


class Task(ABC, Generic[M]):
    """A module, its data and its loss; the outcomes of a step depend on (seed, step) alone."""

    module: M
    num_codes: int = 0
    """0 for what has none."""

    def __init__(self, seed: int, schedule: ScheduleConfig, adversarial: AdversarialConfig) -> None:
        self.seed = seed
        self.schedule = schedule
        self.adversarial = adversarial

    @property
    def device(self) -> torch.device:
        """Where the module computes."""
        return next(self.module.parameters()).device

    @abstractmethod
    def outcomes(self, step: int) -> Iterator[Outcome]:
        """The batches of a step, forward; the caller goes backward before it asks for the next."""

    @abstractmethod
    def discriminator(self) -> nn.Module:
        """A new one, for the adversarial term."""

    def metrics(self, means: dict[str, float]) -> dict[str, float]:
        """What is reported of a step's means."""
        return means

    def complete(self) -> M:
        """The module as it is stored."""
        return self.module


def histogram(codes: Tensor, size: int) -> Tensor:
    """(size,) int64 on the CPU, how often each code occurs."""
    return torch.bincount(codes.flatten().cpu(), minlength=size)
