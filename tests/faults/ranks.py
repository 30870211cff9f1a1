"""One rank of several that is killed, or stopped, in the midst of a step; then the same run again.

python tests/faults/ranks.py CONFIG.yaml OUT.json --world 2 --cases 1:8:KILL,0:3:STOP
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from forks import at, free_port, kill, start, traces, train_whole, wait, wrap

from trimodal.config import RunConfig, load_config
from trimodal.training.trainer import Trainer

AT_ONCE = 2
"""Cases; one goes on while a watchdog is awaited in another."""


@dataclass(frozen=True)
class Case:
    """Which rank gets which signal, in the midst of which step."""

    victim: int
    step: int
    harm: str

    @classmethod
    def of(cls, text: str) -> "Case":
        """From `1:8:KILL`."""
        victim, step, harm = text.split(":")
        return cls(int(victim), int(step), harm)

    def patch(self) -> None:
        """Have this process send itself the signal."""

        def update(updated: Callable[..., Any], trainer: Trainer, *arguments: Any) -> Any:
            if trainer.step + 1 == self.step:
                os.kill(os.getpid(), signal.Signals[f"SIG{self.harm}"])
            return updated(trainer, *arguments)

        wrap(Trainer, "_update", update)


def begin(config: RunConfig, world: int, case: Case) -> list[int]:
    """The ranks of a run, of which one suffers."""
    port = free_port()
    return [
        start(config, rank, world, port, *([case.patch] if rank == case.victim else []))
        for rank in range(world)
    ]


def end(pids: Sequence[int], case: Case) -> list[int]:
    """How the other ranks end."""
    statuses = [wait(pid) for rank, pid in enumerate(pids) if rank != case.victim]
    if case.harm == "STOP":
        kill(pids[case.victim])  # as a launcher does once another rank has ended
    assert wait(pids[case.victim]) == -signal.SIGKILL
    return statuses


def main() -> None:
    """Write what came of each case; they share the run that suffers nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--world", type=int, default=2)
    parser.add_argument("--cases", default="1:8:KILL", help="VICTIM:STEP:HARM,...")
    options = parser.parse_args()
    config = load_config(options.config)
    whole = at(config, "whole")
    assert train_whole(whole, options.world) == [0] * options.world
    texts, found = options.cases.split(","), {}
    for i in range(0, len(texts), AT_ONCE):
        runs = {text: at(config, text.replace(":", "-")) for text in texts[i : i + AT_ONCE]}
        pids = {text: begin(run, options.world, Case.of(text)) for text, run in runs.items()}
        for text, run in runs.items():
            found[text] = {
                "statuses": end(pids[text], Case.of(text)),
                "again": train_whole(run, options.world),
                "traces": traces(run) == traces(whole),
            }
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
