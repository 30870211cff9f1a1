"""Loader processes that are killed or stopped at random steps.

python tests/faults/loaders.py CONFIG.yaml OUT.json --harm KILL --losses 3
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from forks import at, start, traces, train_whole, wait

from trimodal.config import load_config
from trimodal.training.trainer import Trainer


def harming(number: signal.Signals, steps: set[int]) -> Callable[[], None]:
    """Send a signal to a loader process before each of these steps."""

    def patch() -> None:
        taken = Trainer._train_step

        def train_step(self: Trainer, *arguments: Any) -> Any:
            if self.step in steps:
                pids = sorted(child.pid or 0 for child in multiprocessing.active_children())
                os.kill(pids[self.step % len(pids)], number)
            return taken(self, *arguments)

        Trainer._train_step = train_step  # pyright: ignore[reportAttributeAccessIssue]

    return patch


def main() -> None:
    """Write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--harm", choices=["KILL", "STOP"], default="KILL")
    parser.add_argument("--losses", type=int, default=3)
    options = parser.parse_args()
    overrides = ["data.num_workers=2", "data.loader_seconds=3"]
    config = load_config(options.config, overrides)
    whole, victim = at(config, "whole"), at(config, "victim")
    assert train_whole(whole) == [0]
    last = config.training.max_steps
    # two loaders have four batches each in store, so a loss is felt eight steps later
    steps = {i * (last // (options.losses + 1)) for i in range(1, options.losses + 1)}
    started = time.monotonic()
    number = signal.Signals[f"SIG{options.harm}"]
    status = wait(start(victim, before=harming(number, steps)))
    found = {
        "status": status,
        "seconds": time.monotonic() - started,
        "traces": traces(victim) == traces(whole),
        "saved": sorted(p.name for p in (Path(victim.run_dir) / "checkpoints").iterdir()),
    }
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
