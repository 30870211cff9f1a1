"""Timing of several ways of doing one thing: interleaved, by the processor's time, medians.

seconds = medians({"ours": ours, "theirs": theirs}, rounds=9)
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch


class Row(NamedTuple):
    """One comparison of a report."""

    name: str
    ratio: float
    """How many times as fast as the other; of errors, how many times as exact."""
    gate: float | None
    """What `ratio` must reach; None where nothing was promised."""
    ours: float
    theirs: float
    unit: str = "ms"

    @property
    def passes(self) -> bool:
        """Whether the gate, if there is one, is reached."""
        return self.gate is None or self.ratio >= self.gate


def compare(name: str, ours: float, theirs: float, gate: float | None, unit: str = "ms") -> Row:
    """A row of two times, or of two errors."""
    return Row(name, theirs / ours if ours else float("inf"), gate, ours, theirs, unit)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread meanwhile, as processor time over several says little."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def medians(ways: Mapping[str, Callable[[], Any]], rounds: int = 9) -> dict[str, float]:
    """Milliseconds of the process's own processor time, the median of interleaved rounds.

    Other processes' load changes the wall clock and not this, but for caches and clock rates, and
    those change for all ways alike.
    """
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    gc.collect()
    for round_ in range(rounds):
        # every second round backwards, so that no way always follows the same other
        for name in list(ways)[:: 1 if round_ % 2 else -1]:
            start = time.process_time()
            ways[name]()
            taken[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(times) for name, times in taken.items()}
