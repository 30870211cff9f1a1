"""One rank of several that is killed, or stopped, at a random step; then the same run again.

python tests/faults/ranks.py CONFIG.yaml OUT.json --world 2 --victim 1 --harm KILL
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from forks import at, free_port, kill, start, traces, train_whole, wait

from trimodal.config import load_config
from trimodal.training.trainer import Trainer


def harming(number: signal.Signals, step: int) -> Callable[[], None]:
    """Send this process a signal in the midst of a step."""

    def patch() -> None:
        updated = Trainer._update

        def update(self: Trainer, *arguments: Any) -> Any:
            if self.step + 1 == step:
                os.kill(os.getpid(), number)
            return updated(self, *arguments)

        Trainer._update = update  # pyright: ignore[reportAttributeAccessIssue]

    return patch


def main() -> None:
    """Write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--world", type=int, default=2)
    parser.add_argument("--victim", type=int, default=1)
    parser.add_argument("--step", type=int, default=8)
    parser.add_argument("--harm", choices=["KILL", "STOP"], default="KILL")
    options = parser.parse_args()
    config = load_config(options.config)
    whole, harmed = at(config, "whole"), at(config, "harmed")
    assert train_whole(whole, options.world) == [0] * options.world
    port, started = free_port(), time.monotonic()
    before = harming(signal.Signals[f"SIG{options.harm}"], options.step)
    pids = [
        start(harmed, rank, options.world, port, *([before] if rank == options.victim else []))
        for rank in range(options.world)
    ]
    others = [pid for rank, pid in enumerate(pids) if rank != options.victim]
    statuses = [wait(pid) for pid in others]
    seconds = time.monotonic() - started
    if options.harm == "STOP":
        kill(pids[options.victim])  # as a launcher does once another rank has ended
    assert wait(pids[options.victim]) == -signal.SIGKILL
    found = {
        "statuses": statuses,
        "seconds": seconds,
        "again": train_whole(harmed, options.world),
        "traces": traces(harmed) == traces(whole),
    }
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
