"""A run that is stopped and goes on with another number of processes, against one that is not.

python tests/faults/worlds.py CONFIG.yaml OUT.json --worlds 1,2,4,1 --steps 200
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from forks import at, free_port, start, traces, train_whole, wait, wrap

from trimodal.config import RunConfig, load_config
from trimodal.training.trainer import Trainer

STOPPED = 75


def stopping(step: int) -> Callable[[], None]:
    """Ask for an end during a step, as a scheduler does."""

    def train_step(taken: Callable[..., Any], self: Trainer, *arguments: Any) -> Any:
        if self.step + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return taken(self, *arguments)

    return lambda: wrap(Trainer, "_train_step", train_step)


def train_until(config: RunConfig, world_size: int, step: int) -> None:
    """Train on some ranks, of which the last is asked to stop in that step."""
    port = free_port()
    pids = [
        start(
            config,
            rank,
            world_size,
            port,
            before=stopping(step) if rank == world_size - 1 else lambda: None,
        )
        for rank in range(world_size)
    ]
    last = STOPPED if step < config.training.max_steps else 0
    assert [wait(pid) for pid in pids] == [last] * world_size


def main() -> None:
    """Write the losses and the samples of both runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--worlds", default="1,2,4,1")
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    sizes = [int(size) for size in options.worlds.split(",")]
    config = load_config(options.config, [f"training.max_steps={options.steps}"])
    whole, moved = at(config, "whole"), at(config, "moved")
    assert train_whole(whole) == [0]
    for i, size in enumerate(sizes):
        train_until(moved, size, options.steps * (i + 1) // len(sizes))
    found: dict[str, Any] = {"losses": [], "samples": []}
    for run in (whole, moved):
        parts = [trace.split() for _, trace in sorted(traces(run).items())]
        found["losses"].append([float.fromhex(loss) for loss, _, _ in parts])
        found["samples"].append([mark for _, _, mark in parts])
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
