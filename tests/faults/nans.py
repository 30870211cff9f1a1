"""Gradients and losses that are not finite, on one rank of two, at random steps.

python tests/faults/nans.py CONFIG.yaml OUT.json --trials 20
"""

import argparse
import hashlib
import itertools
import json
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from forks import at, free_port, start, wait, wrap
from safetensors.torch import load_file

from trimodal.config import RunConfig, load_config
from trimodal.training.gradients import StepGradients
from trimodal.training.trainer import Trainer

KINDS = ("nan", "inf", "loss")
GAP = 2
"""Steps from one fault to the next, so that they are never three in a row."""


def digest(trainer: Trainer) -> str:
    """Of all weights and of the optimizer's state."""
    total = hashlib.sha256()
    for parameter in trainer.bare.parameters():
        total.update(parameter.detach().numpy().tobytes())
        for _, value in sorted(trainer.optimizer.state.get(parameter, {}).items()):
            total.update(value.numpy().tobytes())
    return total.hexdigest()


def faulty(rank: int, faults: dict[int, tuple[int, str]], out: Path) -> Callable[[], None]:
    """Break the steps of `faults` on their rank, and note the weights before and after each."""

    numbers = itertools.count(1)

    def gradients(
        compute: Callable[..., dict[str, float]], self: StepGradients, batches: Sequence[Any]
    ) -> dict[str, float]:
        losses, step = compute(self, batches), next(numbers)
        where, kind = faults.get(step, (-1, ""))
        if where == rank and kind == "loss":
            return {**losses, "loss": math.nan}
        if where == rank:
            grads = [p.grad for p in self.bare.parameters() if p.grad is not None]
            grads[step % len(grads)].view(-1)[-1] = float(kind)
        return losses

    def train_step(taken: Callable[..., Any], self: Trainer, *arguments: Any) -> Any:
        step, before = self.step + 1, digest(self)
        outcome = taken(self, *arguments)
        noted = {"step": step, "before": before, "after": digest(self)}
        with out.open("a") as file:
            print(json.dumps(noted), file=file)
        return outcome

    def patch() -> None:
        wrap(StepGradients, "__call__", gradients)
        wrap(Trainer, "_train_step", train_step)

    return patch


def finite(checkpoints: Path) -> list[bool]:
    """Whether each file of each checkpoint is."""
    files = sorted(checkpoints.glob("step-*/*.safetensors"))
    return [all(bool(x.isfinite().all()) for x in load_file(file).values()) for file in files]


def run(config: RunConfig, faults: dict[int, tuple[int, str]]) -> list[list[dict[str, Any]]]:
    """Train on two ranks; what each noted."""
    port, folder = free_port(), Path(config.run_dir).parent
    outs = [folder / f"rank{rank}.jsonl" for rank in range(2)]
    pids = [
        start(config, rank, 2, port, before=faulty(rank, faults, out))
        for rank, out in enumerate(outs)
    ]
    assert [wait(pid) for pid in pids] == [0, 0]
    return [[json.loads(line) for line in out.read_text().splitlines()] for out in outs]


def main() -> None:
    """Write what became of the weights in each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=6)
    options = parser.parse_args()
    rng = random.Random(0)  # noqa: S311 - no secret
    faults = {
        GAP * (i + 1): (rng.randrange(2), KINDS[i % len(KINDS)]) for i in range(options.trials)
    }
    config = at(load_config(options.config), "nans")
    settings = replace(
        config.training,
        max_steps=GAP * (options.trials + 1),
        checkpoint_every=1,  # so that each fault is followed by a checkpoint
        keep_checkpoints=GAP * (options.trials + 1),
    )
    first, second = run(replace(config, training=settings), faults)
    found = {
        "alike": [a == b for a, b in zip(first, second, strict=True)],
        "kept": {row["step"]: row["before"] == row["after"] for row in first},
        "faults": sorted(faults),
        "finite": finite(Path(config.run_dir) / "checkpoints"),
    }
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
