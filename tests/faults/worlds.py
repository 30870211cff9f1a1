"""A run that is stopped and goes on with another number of processes, against one that is not.

Nobody looks at the latter between.

python tests/faults/worlds.py CONFIG.yaml OUT.json --worlds 1,2,4,1 --steps 200

`2s` are two processes over which parameters and moments are spread.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from forks import at, free_port, start, traces, train_whole, wait, wrap

from trimodal.config import RunConfig, load_config
from trimodal.training.trainer import Trainer

STOPPED = 75


def prepared(sharded: bool, step: int | None) -> Callable[[], None]:
    """What a process does first: ask for FSDP2, and for an end during a step, as schedulers do."""

    def train_step(taken: Callable[..., Any], self: Trainer, *arguments: Any) -> Any:
        if self.step + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return taken(self, *arguments)

    def patch() -> None:
        if sharded:
            os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
        if step is not None:
            wrap(Trainer, "_train_step", train_step)

    return patch


def train_until(config: RunConfig, world: str, step: int) -> None:
    """Train on some ranks, of which the last is asked to stop in that step."""
    port, world_size, sharded = free_port(), int(world.rstrip("s")), world.endswith("s")
    pids = [
        start(
            config,
            rank,
            world_size,
            port,
            before=prepared(sharded, step if rank == world_size - 1 else None),
        )
        for rank in range(world_size)
    ]
    last = STOPPED if step < config.training.max_steps else 0
    assert [wait(pid) for pid in pids] == [last] * world_size


def norms(config: RunConfig) -> list[dict[str, float]]:
    """Of the gradients of all and of each part, a step."""
    lines = (Path(config.run_dir) / "metrics.jsonl").read_text().splitlines()
    by_step = {line["step"]: line for line in map(json.loads, lines) if "grad_norm" in line}
    return [
        {name: value for name, value in line.items() if name.startswith("grad_norm")}
        for _, line in sorted(by_step.items())
    ]


def main() -> None:
    """Write the losses, the samples and the norms of both runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--worlds", default="1,2,4,1")
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    worlds = options.worlds.split(",")
    config = load_config(options.config, [f"training.max_steps={options.steps}"])
    unseen = replace(config.training, validate_every=0, sample_every=0)
    whole, moved = at(replace(config, training=unseen), "whole"), at(config, "moved")
    assert train_whole(whole) == [0]
    for i, world in enumerate(worlds):
        train_until(moved, world, options.steps * (i + 1) // len(worlds))
    found: dict[str, Any] = {"losses": [], "samples": [], "norms": []}
    for run in (whole, moved):
        found["norms"].append(norms(run))
        parts = [trace.split() for _, trace in sorted(traces(run).items())]
        found["losses"].append([float.fromhex(loss) for loss, _, _ in parts])
        found["samples"].append([mark for _, _, mark in parts])
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
