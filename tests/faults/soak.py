"""A long run of tiny steps, whose memory, files and threads are counted as it goes.

`threads` are Python's, `tasks` all that the process has.

python tests/faults/soak.py CONFIG.yaml OUT.json --steps 20000
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from forks import at, start, wait, wrap

from trimodal.config import load_config
from trimodal.training.trainer import Trainer

PAGE = os.sysconf("SC_PAGE_SIZE")


def counting(out: Path, every: int) -> Callable[[], None]:
    """Note the state of the process every so many steps, with no checkpoint half written."""

    def train_step(taken: Callable[..., Any], self: Trainer, *arguments: Any) -> Any:
        outcome = taken(self, *arguments)
        if self.step % every == 0:
            self.saver.wait()
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
            state = {
                "step": self.step,
                "megabytes": resident / 2**20,
                "files": len(list(Path("/proc/self/fd").iterdir())),
                "threads": threading.active_count(),
                "tasks": len(list(Path("/proc/self/task").iterdir())),
            }
            with out.open("a") as file:
                print(json.dumps(state), file=file)
        return outcome

    return lambda: wrap(Trainer, "_train_step", train_step)


def main() -> None:
    """Write the slope of memory over the later three quarters, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=100, help="steps from one count to the next")
    options = parser.parse_args()
    # half the samples of the other scripts, with all objectives: the steps count, not their size
    overrides = [f"training.max_steps={options.steps}", "training.batch_size=4"]
    overrides.append(f"training.checkpoint_every={5 * options.every}")
    config = at(load_config(options.config, overrides), "soak")
    noted = options.out.with_suffix(".jsonl")
    assert wait(start(config, before=counting(noted, options.every))) == 0
    states = [json.loads(line) for line in noted.read_text().splitlines()]
    later = states[len(states) // 4 :]
    steps = np.array([state["step"] for state in later])
    megabytes = np.array([state["megabytes"] for state in later])
    found = {
        "megabytes_per_1000": 1000 * float(np.polyfit(steps, megabytes, 1)[0]),
        **{
            name: sorted({state[name] for state in later}) for name in ("files", "threads", "tasks")
        },
        "megabytes": [states[0]["megabytes"], later[0]["megabytes"], later[-1]["megabytes"]],
    }
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
