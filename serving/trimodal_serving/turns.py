"""Whose job is next: tenants take turns by what they cost, and so do the lanes of each.

turns = Turns(); number = turns.add(("alice", "text"), job, cost=12)
jobs = turns.take([number for number, job in turns.waiting()])
"""

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

WINDOW = 4096
"""Jobs that are looked at for a batch, so that choosing never holds up the event loop."""

J = TypeVar("J")
Path = tuple[str, ...]


@dataclass
class _Entry(Generic[J]):
    job: J
    cost: float
    path: Path
    number: int


@dataclass
class _Branch(Generic[J]):
    """A tenant, or a lane of it."""

    price: float = 1.0
    clock: float = 0.0
    """What was computed for it, brought forward to `now` of its parent when it was idle."""
    now: float = 0.0
    """The clock of the child that was last served: what a child that was idle begins with."""
    size: int = 0
    """Of all entries below."""
    children: "dict[str, _Branch[J]]" = field(default_factory=dict)
    entries: dict[int, _Entry[J]] = field(default_factory=dict)

    def ordered(self) -> Iterator[_Entry[J]]:
        """Its entries in the order in which they would be served."""
        if not self.children:
            yield from self.entries.values()
            return
        ties = itertools.count()
        busy = [child for child in self.children.values() if child.size]
        heap = [(child.clock, next(ties), child.price, child.ordered()) for child in busy]
        heapq.heapify(heap)
        while heap:
            clock, _, price, entries = heap[0]
            entry = next(entries, None)
            if entry is None:
                heapq.heappop(heap)
                continue
            yield entry
            heapq.heapreplace(heap, (clock + price * entry.cost, next(ties), price, entries))


class Turns(Generic[J]):
    """Jobs that wait, by paths such as (tenant, lane).

    Each branch has a clock that goes forward by the cost of what is computed for it, and the one
    that is furthest behind is next (stride scheduling, Waldspurger and Weihl, 1995): over any time
    in which two tenants both wait, both get the same, whatever they send. One that comes after a
    while begins where the others are, so it waits for nobody's backlog and saves nothing up.
    Within a lane the oldest job is first.
    """

    def __init__(self, prices: Mapping[str, float] | None = None) -> None:
        """Begin with nothing.

        Args:
            prices: of the first names of paths, 1 for others; twice the price is half of the share.
        """
        self._prices = prices or {}
        self._root: _Branch[J] = _Branch()
        self._entries: dict[int, _Entry[J]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[J]:
        """The jobs in the order in which they came."""
        return (entry.job for entry in self._entries.values())

    def add(self, path: Path, job: J, cost: float) -> int:
        """Put a job behind those of its lane; returns its number.

        Args:
            path: the same number of names for all jobs.
            job: anything.
            cost: how far the clocks go forward once it is taken.
        """
        number = next(self._numbers)
        entry = self._entries[number] = _Entry(job, cost, path, number)
        branch = self._root
        for name in path:
            branch.size += 1
            if name not in branch.children:
                price = self._prices.get(name, 1.0) if branch is self._root else 1.0
                branch.children[name] = _Branch(price)
            parent, branch = branch, branch.children[name]
            if not branch.size:
                branch.clock = max(branch.clock, parent.now)
        branch.size += 1
        branch.entries[number] = entry
        return number

    def drop(self, number: int) -> None:
        """Forget a job, if it still waits; nobody pays for it."""
        entry = self._entries.pop(number, None)
        if entry is None:
            return
        branch = self._root
        for name in entry.path:
            branch.size -= 1
            branch = branch.children[name]
        branch.size -= 1
        del branch.entries[number]

    def ordered(self) -> Iterator[tuple[int, J]]:
        """The jobs that are next, with their numbers, one by one and no more than `WINDOW`."""
        for entry in itertools.islice(self._root.ordered(), WINDOW):
            yield entry.number, entry.job

    def waiting(self) -> list[tuple[int, J]]:
        """The same as a list."""
        return list(self.ordered())

    def take(self, numbers: Sequence[int]) -> list[J]:
        """Take jobs out, and let their branches pay for them."""
        jobs = []
        for number in numbers:
            entry = self._entries[number]
            branch = self._root
            for name in entry.path:
                parent, branch = branch, branch.children[name]
                parent.now = max(parent.now, branch.clock)
                branch.clock += branch.price * entry.cost
            self.drop(number)
            jobs.append(entry.job)
        return jobs
