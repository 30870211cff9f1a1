"""Timing of several ways of doing one thing: interleaved, medians.

milliseconds = medians({"ours": ours, "theirs": theirs}, rounds=9)
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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


CPU = torch.device("cpu")
AHEAD = 4_000_000
"""Cycles, about 2 ms, for which a GPU is kept busy while the host launches what is timed."""


def milliseconds(way: Callable[[], Any], device: torch.device = CPU) -> float:
    """How long one call takes.

    On a CPU it is the process's own processor time: other processes' load changes the wall clock
    and not this, but for caches and clock rates, and those change for all ways alike. On a GPU it
    is the time between two events around the call.
    """
    if device.type != "cuda":
        start = time.process_time()
        way()
        return 1e3 * (time.process_time() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    torch.cuda._sleep(AHEAD)  # or the first kernels would wait for the host between the events
    begin.record()
    way()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def wall_milliseconds(way: Callable[[], Any], device: torch.device = CPU) -> float:
    """How long one call takes by the clock, with what the host does for it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start)


def medians(
    ways: Mapping[str, Callable[[], Any]], rounds: int = 9, device: torch.device = CPU
) -> dict[str, float]:
    """Milliseconds, the median of interleaved rounds after one that does not count."""
    for way in ways.values():
        way()
    gc.collect()
    return medians_over((ways for _ in range(rounds)), device)


def medians_over(
    cases: Iterable[Mapping[str, Callable[[], Any]]], device: torch.device = CPU
) -> dict[str, float]:
    """Milliseconds, the median over cases, each of which every way is timed on once."""
    taken: dict[str, list[float]] = {}
    for number, ways in enumerate(cases):
        # every second case backwards, so that no way always follows the same other
        for name in list(ways)[:: 1 if number % 2 else -1]:
            taken.setdefault(name, []).append(milliseconds(ways[name], device))
    return {name: statistics.median(times) for name, times in taken.items()}
