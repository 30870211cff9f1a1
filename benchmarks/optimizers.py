"""Optimizers at equal steps on a small model: losses and retrieval on held-out samples.

python benchmarks/optimizers.py configs/demo.yaml --steps 200 --rates 1e-3 3e-3 --seeds 0 1
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from trimodal.config import RunConfig, SpeechAugmentConfig, VisionAugmentConfig, load_config
from trimodal.data import read_manifest
from trimodal.errors import ConfigError, TrimodalError
from trimodal.evaluation.table import grid
from trimodal.models import TrimodalModel
from trimodal.training.averaging import WeightAverage
from trimodal.training.building import build_dataset, build_processor, new_model
from trimodal.training.feed import StepFeed
from trimodal.training.gradients import StepGradients
from trimodal.training.optimizer import (
    build_optimizer,
    learning_rate,
    parameter_groups,
    set_rate,
)
from trimodal.training.validation import validate

LAST = 20
"""Steps whose mean loss is the training loss."""


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """AdamW whose averaged iterate stands in for a falling rate (Defazio et al., 2024).

    The parameters are the points `y` at which gradients are taken; `averaged` shows `x`.
    """

    def __init__(
        self, groups: list[dict[str, Any]], rate: float, betas: tuple[float, float]
    ) -> None:
        super().__init__(groups, {"lr": rate, "betas": betas, "eps": 1e-8})
        self.count, self.total, self.largest = 0, 0.0, 0.0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update; the weight of an iterate is the square of the largest rate so far."""
        self.count += 1
        self.largest = max(self.largest, self.param_groups[0]["lr"])
        self.total += self.largest**2
        share = self.largest**2 / self.total
        for group in self.param_groups:
            beta, beta2 = group["betas"]
            for y in group["params"]:
                if y.grad is None:
                    continue
                state = self.state[y]
                if not state:
                    state["z"], state["square"] = y.clone(), torch.zeros_like(y)
                z, square = state["z"], state["square"]
                square.mul_(beta2).addcmul_(y.grad, y.grad, value=1 - beta2)
                scale = (square / (1 - beta2**self.count)).sqrt_().add_(group["eps"])
                change = y.grad / scale + group["weight_decay"] * y
                y.lerp_(z, share)
                y.add_(change, alpha=group["lr"] * (beta * (1 - share) - 1))
                z.sub_(change, alpha=group["lr"])

    @torch.no_grad()
    def averaged(self) -> None:
        """Put the average in the place of the parameters; no step may follow."""
        for group in self.param_groups:
            for y in group["params"]:
                if self.state[y]:
                    y.lerp_(self.state[y]["z"], 1 - 1 / group["betas"][0])


def adamw(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """What a run has unless it asks for another."""
    return build_optimizer(model, replace(config.training, optimizer="adamw"))


def muon(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """Muon within the blocks, AdamW elsewhere."""
    return build_optimizer(model, replace(config.training, optimizer="muon"))


def schedule_free(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """Schedule-free AdamW, with the first beta that its authors advise."""
    groups = parameter_groups(model, config.training.weight_decay)
    return ScheduleFreeAdamW(groups, config.training.learning_rate, (0.9, config.training.betas[1]))


OPTIMIZERS: dict[str, Callable[[nn.Module, RunConfig], torch.optim.Optimizer]] = {
    "adamw": adamw,
    "muon": muon,
    "schedule-free": schedule_free,
}


def rate_of(name: str, step: int, config: RunConfig) -> float:
    """The rate of a step; without a schedule it stays at its peak after the warm-up."""
    settings = config.training
    if name == "schedule-free":
        return settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return learning_rate(step, settings)


class Trial:
    """One training, and what it gives."""

    def __init__(self, name: str, config: RunConfig) -> None:
        self.name, self.config = name, config
        processor = build_processor(config)
        self.feed = StepFeed(build_dataset(config, processor), config)
        held_out = _held_out(config)
        self.held_out = StepFeed(build_dataset(held_out, processor), held_out)
        torch.manual_seed(config.seed)
        self.model: TrimodalModel = new_model(config, processor).train()
        self.optimizer = OPTIMIZERS[name](self.model, config)
        self.gradients = StepGradients(Accelerator(cpu=True), self.model, config)
        self.average = WeightAverage(self.model, config.training.ema)

    def run(self) -> dict[str, float]:
        """Train; `loss` of the last steps, `validation` loss, and mean R@1 of all directions."""
        settings, losses = self.config.training, []
        for step in range(settings.max_steps):
            set_rate(self.optimizer, rate_of(self.name, step, self.config))
            losses.append(self.gradients(self.feed.batches(step), step)["loss"])
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.model.bound_scale()
            self.average.update()
        if isinstance(self.optimizer, ScheduleFreeAdamW):
            self.optimizer.averaged()
        with self.average.applied():
            return {"loss": statistics.fmean(losses[-LAST:]), **self._measured()}

    def _measured(self) -> dict[str, float]:
        size = len(self.held_out.dataset)
        steps = size // self.config.training.batch_size
        losses = [self.gradients(self.held_out.batches(i), i)["loss"] for i in range(steps)]
        self.model.zero_grad()
        rows = read_manifest(str(self.config.data.validation))
        scores = validate(self.model, rows, self.config.training.token_budget)
        found = [value for key, value in scores.items() if key.startswith("validation/")]
        return {"validation": statistics.fmean(losses), "R@1": statistics.fmean(found)}


def _held_out(config: RunConfig) -> RunConfig:
    if config.data.validation is None:
        raise ConfigError("data.validation: names no file")
    data = replace(
        config.data,
        train=(config.data.validation,),
        vision_augment=VisionAugmentConfig(),
        speech_augment=SpeechAugmentConfig(),
    )
    return replace(config, data=data)


def run(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Every optimizer at every rate with every seed; trials that are there are not made again."""
    found: dict[str, list[dict[str, float]]] = {}
    for name in options.optimizers:
        for rate in options.rates:
            results = []
            for seed in options.seeds:
                path = options.out / f"{name}-{rate:g}-{options.steps}-{seed}.json"
                if not path.exists():
                    settings = [f"training.learning_rate={rate}", f"seed={seed}"]
                    settings += [f"training.max_steps={options.steps}", *options.overrides]
                    outcome = Trial(name, load_config(options.config, settings)).run()
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(outcome), encoding="utf-8")
                results.append(json.loads(path.read_text(encoding="utf-8")))
                print(f"{name} {rate:g} {seed}: {results[-1]}", file=sys.stderr, flush=True)
            found[f"{name} {rate:g}"] = results
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """A line an optimizer and rate: means over the seeds, with the range of the losses."""
    lines = []
    for name, results in found.items():
        losses, held_out, recall = (
            [result[key] for result in results] for key in ("loss", "validation", "R@1")
        )
        lines.append([name, _range(losses), _range(held_out), _range([100 * x for x in recall])])
    return grid(["optimizer, rate", "training loss", "validation loss", "R@1, %"], lines)


def _range(values: Iterable[float]) -> str:
    values = list(values)
    middle = statistics.fmean(values)
    return f"{middle:.3f} ({min(values):.3f} to {max(values):.3f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="a run's configuration, with validation data")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--steps", type=int, default=200, help="of each run (default: 200)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/optimizers"), help="their results")
    try:
        print(table(run(parser.parse_args(arguments))))
    except TrimodalError as error:
        print(f"optimizers: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
