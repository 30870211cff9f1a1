"""What a checkpoint costs: the share of hashing in saving, and how far it slows steps beside it.

python benchmarks/checkpoints.py --megabytes 512 --rounds 9 --folder /a/disk
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from trimodal.training import checkpoint
from trimodal.training.saver import Saver

FILES = 8


def tensors(megabytes: int) -> dict[str, dict[str, torch.Tensor]]:
    """Weights, and twice as many numbers of an optimizer."""
    count = megabytes * 2**20 // 4 // 3 // FILES
    draws = torch.Generator().manual_seed(0)
    return {
        stem: {f"{i}": torch.randn(count, generator=draws) for i in range(times * FILES)}
        for stem, times in (("model", 1), ("optimizer", 2))
    }


def _unhashed(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": ""}


def saving(
    content: dict[str, dict[str, torch.Tensor]], rounds: int, folder: str | None
) -> dict[str, list[float]]:
    """Seconds of saves with hashes and without, one after the other, each first in turn."""
    times: dict[str, list[float]] = {"hashed": [], "plain": []}
    numbers = itertools.count(1)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for number in range(-1, rounds):
            order = list(times) if number % 2 else list(reversed(times))
            for kind in order:
                entry: Callable[[Path], Any] = checkpoint._entry if kind == "hashed" else _unhashed
                os.sync()  # what others wrote is no part of it
                with mock.patch.object(checkpoint, "_entry", entry):
                    started = time.perf_counter()
                    checkpoint.save(Path(place), next(numbers), content, {}, keep=1)
                    taken = time.perf_counter() - started
                if number >= 0:  # the first of each makes room and warms up
                    times[kind].append(taken)
    return times


def step(x: torch.Tensor) -> torch.Tensor:
    """Products of matrices as in training, on one thread."""
    for _ in range(20):
        x = torch.nn.functional.normalize(x @ x)
    return x


def stalling(
    content: dict[str, dict[str, torch.Tensor]], rounds: int, folder: str | None, most: float
) -> dict[str, list[float]]:
    """Seconds of steps alone and beside writing, of the copies, and of whole intervals.

    An interval is as many steps as `most` seconds have, with a checkpoint begun before the first
    or without one; both kinds are taken in turn.
    """
    times: dict[str, list[float]] = {
        name: [] for name in ("alone", "beside", "copy", "with", "without")
    }
    x = torch.randn(512, 512)
    with tempfile.TemporaryDirectory(dir=folder) as place, Saver(Path(place), keep=1) as saver:
        started = time.perf_counter()
        for _ in range(10):
            x = step(x)
        steps = max(10, int(10 * most / (time.perf_counter() - started)))
        for number in range(2 * rounds):
            saves = number % 4 in (0, 3)
            os.sync()
            begun = time.perf_counter()
            if saves:
                saver.save(number, content, {})
                times["copy"].append(time.perf_counter() - begun)
            for _ in range(steps):
                started = time.perf_counter()
                x = step(x)
                writing = saver._pending is not None and not saver._pending.done()
                kind = "beside" if writing else "alone"
                times[kind].append(time.perf_counter() - started)
            times["with" if saves else "without"].append(time.perf_counter() - begun)
            if saver._pending is not None and not saver._pending.done():
                print("a checkpoint took longer than its interval; ask for more --seconds")
            saver.wait()
    return times


def _told(seconds: Sequence[float]) -> str:
    first, middle, third = (1e3 * float(t) for t in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return f"{middle:.1f} ({first:.1f} to {third:.1f}) ms"


def _share(times: dict[str, list[float]], dear: str, cheap: str) -> float:
    """How much more the one takes than the other, in percent of medians."""
    return 100 * (statistics.median(times[dear]) / statistics.median(times[cheap]) - 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both, medians with their quartiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512, help="of a checkpoint (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of an interval (%(default)s)")
    parser.add_argument("--folder", help="on the disk that is measured (that of temporary files)")
    options = parser.parse_args(arguments)
    if options.folder is not None:
        Path(options.folder).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    content = tensors(options.megabytes)
    times = saving(content, options.rounds, options.folder)
    print(f"a save of {options.megabytes} MB: {_told(times['hashed'])}")
    print(f"the same without hashes: {_told(times['plain'])}")
    print(f"hashes add {_share(times, 'hashed', 'plain'):.1f} %")
    times = stalling(content, options.rounds, options.folder, options.seconds)
    print(f"a step alone: {_told(times['alone'])}; beside writing: {_told(times['beside'])}")
    print(f"a step beside writing takes {_share(times, 'beside', 'alone'):.1f} % longer")
    print(f"the copy before writing: {_told(times['copy'])}")
    longer = _share(times, "with", "without")
    print(f"{options.seconds:g} s of steps take {longer:.1f} % longer with a save among them")


if __name__ == "__main__":
    main()
