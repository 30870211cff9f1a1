"""Loader processes that are killed or stopped at random steps.

python tests/faults/loaders.py CONFIG.yaml OUT.json --harms KILL,STOP --losses 3
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from forks import at, start, traces, train_whole, wait, wrap

from trimodal.config import load_config
from trimodal.training.trainer import Trainer

LOOKS = 0.2
"""Seconds between two looks for a loader that is stopped."""


class Hurried(threading.Timer):
    """Runs out when a loader is stopped and not before, however slow a busy machine is."""

    def run(self) -> None:
        """Until it runs out or is cancelled."""
        while not self.finished.wait(LOOKS):
            if any(stopped(child.pid or 0) for child in multiprocessing.active_children()):
                self.function(*self.args, **self.kwargs)
                self.finished.set()


def stopped(pid: int) -> bool:
    """Whether a process is, by what stands behind its name."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] == "T"


def harming(number: signal.Signals, steps: set[int]) -> Callable[[], None]:
    """Send a signal to a loader process before each of these steps."""

    def train_step(taken: Callable[..., Any], self: Trainer, *arguments: Any) -> Any:
        if self.step in steps:
            pids = sorted(child.pid or 0 for child in multiprocessing.active_children())
            os.kill(pids[self.step % len(pids)], number)
        return taken(self, *arguments)

    def patch() -> None:
        wrap(Trainer, "_train_step", train_step)
        wrap(threading, "Timer", lambda _, *arguments: Hurried(*arguments))

    return patch


def main() -> None:
    """Write what came of each kind of harm; they share the run that suffers none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--harms", default="KILL,STOP")
    parser.add_argument("--losses", type=int, default=3)
    options = parser.parse_args()
    config = load_config(options.config, ["data.num_workers=2"])
    whole, last = at(config, "whole"), config.training.max_steps
    assert train_whole(whole) == [0]
    # two loaders have four batches each in store, so a loss is felt eight steps later
    steps = {i * (last // (options.losses + 1)) for i in range(1, options.losses + 1)}
    found = {}
    for harm in options.harms.split(","):
        victim = at(config, harm)
        found[harm] = {
            "status": wait(start(victim, before=harming(signal.Signals[f"SIG{harm}"], steps))),
            "traces": traces(victim) == traces(whole),
            "saved": sorted(p.name for p in (Path(victim.run_dir) / "checkpoints").iterdir()),
        }
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
