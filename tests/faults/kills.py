"""A run that is killed again and again, against one that is not.

python tests/faults/kills.py CONFIG.yaml OUT.json --kills 50 --inside 12 --workers 0,2 --steps 240
"""

import argparse
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from forks import at, start, traces, train_whole, wait, weights, wrap

from trimodal.config import RunConfig, load_config
from trimodal.training import checkpoint
from trimodal.training.trainer import Trainer

STAGES = ("save_file", "_entry", "sync", "_remove")
"""Of a checkpoint's way to its place; each can be the last thing that happens, or nearly."""
BEGINNING = 1.0
"""Seconds within which a run has begun its first step, or nearly."""


def dying(number: int, *, after: bool) -> Callable[[], None]:
    """Kill the process at the `number`th stage of writing checkpoints."""
    left, lock = number, threading.Lock()

    def counted(stage: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal left
        with lock:  # hashes are taken by a thread of their own
            left -= 1
            last = left == 0
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        made = stage(*arguments)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    def patch() -> None:
        for name in STAGES:
            wrap(checkpoint, name, counted)

    return patch


def dying_soon(steps: int, delay: float) -> Callable[[], None]:
    """Kill the process so many seconds after its `steps`th step began, or after it began itself."""
    left = steps

    def end() -> None:
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()

    def counted(taken: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            end()
        return taken(*arguments)

    def patch() -> None:
        if not steps:
            end()
        wrap(Trainer, "_train_step", counted)

    return patch


def survive(config: RunConfig, kills: int, inside: int, pace: float, seed: int) -> dict[str, Any]:
    """Kill a run `kills` times, `inside` of them while a checkpoint is written; then let it end."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    kinds = [True] * inside + [False] * (kills - inside)
    rng.shuffle(kinds)
    seen: dict[int, set[str]] = {}
    done = {True: 0, False: 0}
    while kinds:
        if kinds[-1]:
            before = dying(rng.randint(1, 24), after=rng.random() < 0.5)
        else:
            steps = rng.randint(0, 3 * config.training.checkpoint_every)
            before = dying_soon(steps, rng.uniform(0, pace if steps else BEGINNING))
        status = wait(start(config, before=before))
        for step, trace in traces(config).items():
            seen.setdefault(step, set()).add(trace)
        if status == 0:
            break  # it ended before it could be killed: what is left cannot be tried here
        assert status == -signal.SIGKILL, f"it ended with {status}"
        done[kinds.pop()] += 1
    (status,) = train_whole(config)
    assert status == 0, f"the last run ended with {status}"
    for step, trace in traces(config).items():
        seen.setdefault(step, set()).add(trace)
    conflicts = sum(len(found) > 1 for found in seen.values())
    return {"kills": done[True] + done[False], "inside": done[True], "conflicts": conflicts}


def main() -> None:
    """Write what was found with each number of loader processes; they share the run without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--inside", type=int, default=2)
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = load_config(options.config, [f"training.max_steps={options.steps}"])
    whole = at(config, "whole")
    started = time.monotonic()
    assert train_whole(whole) == [0]
    pace = 2 * (time.monotonic() - started) / options.steps
    found = {}
    for workers in map(int, options.workers.split(",")):
        data = replace(config.data, num_workers=workers)
        victim = replace(at(config, f"victim{workers}"), data=data)
        seed = options.seed + workers
        survived = survive(victim, options.kills, options.inside, pace, seed)
        found[workers] = survived | compared(victim, whole)
    options.out.write_text(json.dumps(found))


def compared(victim: RunConfig, whole: RunConfig) -> dict[str, Any]:
    """What the run that was killed has in common with the one that was not."""
    expected, got = traces(whole), traces(victim)
    samples = [{step: trace.split()[2] for step, trace in run.items()} for run in (expected, got)]
    return {
        "traces": expected == got,
        "weights": weights(whole) == weights(victim),
        "steps": sorted(got) == list(range(1, whole.training.max_steps + 1)),
        "samples": samples[0] == samples[1],
        "distinct": len(set(samples[0].values())),
        "left": [p.name for p in (Path(victim.run_dir) / "checkpoints").glob(".tmp-*")],
    }


if __name__ == "__main__":
    main()
