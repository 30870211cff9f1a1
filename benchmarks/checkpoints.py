"""What a checkpoint costs: the share of hashing in saving, and how far it slows steps beside it.

python benchmarks/checkpoints.py --megabytes 512 --rounds 5
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

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


def saving(content: dict[str, dict[str, torch.Tensor]], rounds: int) -> tuple[float, float]:
    """Median seconds of saving with hashes and without, taken in turn."""
    times: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for step in range(2 * rounds):
            hashed = step % 2 == 0
            entry: Callable[[Path], Any] = checkpoint._entry if hashed else _unhashed
            with mock.patch.object(checkpoint, "_entry", entry):
                started = time.perf_counter()
                checkpoint.save(Path(folder), step, content, {}, keep=1)
                times[hashed].append(time.perf_counter() - started)
    return statistics.median(times[True]), statistics.median(times[False])


def steps(count: int) -> list[float]:
    """Seconds of steps that compute as training does, on one thread."""
    x = torch.randn(512, 512)
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        for _ in range(20):
            x = torch.nn.functional.normalize(x @ x)
        taken.append(time.perf_counter() - started)
    return taken


def stalling(
    content: dict[str, dict[str, torch.Tensor]], rounds: int
) -> tuple[float, float, float]:
    """Median seconds of a step beside no writing and beside it, and of the copy before."""
    alone, beside, copies = [], [], []
    with tempfile.TemporaryDirectory() as folder, Saver(Path(folder), keep=1) as saver:
        for step in range(rounds):
            alone += steps(20)
            started = time.perf_counter()
            saver.save(step, content, {})
            copies.append(time.perf_counter() - started)
            while saver._pending is not None and not saver._pending.done():
                beside += steps(1)
            saver.wait()
    return statistics.median(alone), statistics.median(beside), statistics.median(copies)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512, help="of a checkpoint (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    content = tensors(options.megabytes)
    hashed, plain = saving(content, options.rounds)
    print(f"saving {options.megabytes} MB: {hashed:.3f} s, without hashes {plain:.3f} s, ", end="")
    print(f"overhead {100 * (hashed / plain - 1):.1f} %")
    alone, beside, copy = stalling(content, options.rounds)
    print(f"a step: {1e3 * alone:.2f} ms alone, {1e3 * beside:.2f} ms beside writing, ", end="")
    print(f"{100 * (beside / alone - 1):.1f} % slower; the copy before takes {copy:.3f} s")


if __name__ == "__main__":
    main()
