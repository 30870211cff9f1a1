"""Which row stands at each place of a run, a pure function of (seed, sizes, mixture, place).

order = SampleOrder([1000, 200], config)
row = order.row(17)
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from trimodal.config import MixtureConfig, RunConfig
from trimodal.errors import ConfigError
from trimodal.streams import permutation

BLOCK = 1024
"""Places among which weights hold exactly."""
KEPT = 8
"""Permutations that are remembered of each kind."""


class SampleOrder:
    """Places of a run to rows of its manifests, which lie one after the other.

    Without a mixture the rows of all manifests are one corpus, and place g is element g mod n of
    the permutation of its epoch. With one, each block of places has as many rows of each manifest
    as its weights say, in an order of its own, and each manifest goes through its own epochs. How
    many rows of a manifest stand before a place follows from the weights alone, so there is
    nothing to remember from step to step.
    """

    def __init__(self, sizes: Sequence[int], config: RunConfig) -> None:
        self.seed = config.seed
        phases = config.data.mixture
        self.sizes = list(sizes) if phases else [sum(sizes)]
        self.offsets = np.cumsum([0, *self.sizes[:-1]]).tolist()
        self._phases = phases
        self._starts = [phase.from_step * config.training.batch_size for phase in phases]
        self._shares = [apportion(phase) for phase in phases]
        self._kept: dict[str, dict[Hashable, np.ndarray]] = {"order": {}, "block": {}}
        self._before = self._drawn_before()

    def row(self, place: int) -> int:
        """The row at a place, counted from 0 over the whole run."""
        source, number = self._source(place) if self._phases else (0, place)
        size = self.sizes[source]
        epoch, position = divmod(number, size)
        keys = (self.seed, source, epoch) if self._phases else (self.seed, epoch)
        order = self._remembered("order", keys, lambda: permutation(size, *keys))
        return self.offsets[source] + int(order[position])

    def _source(self, place: int) -> tuple[int, int]:
        """Of which manifest the row is, and how many of that manifest stand before it."""
        phase = max(i for i, start in enumerate(self._starts) if start <= place)
        block, rest = divmod(place - self._starts[phase], BLOCK)
        sources = self._block(phase, block)
        source = int(sources[rest])
        before = self._before[phase][source] + block * self._shares[phase][source]
        return source, before + int((sources[:rest] == source).sum())

    def _block(self, phase: int, block: int) -> np.ndarray:
        def draw() -> np.ndarray:
            sources = np.repeat(np.arange(len(self.sizes)), self._shares[phase])
            return sources[permutation(BLOCK, "mixture", self.seed, phase, block)]

        return self._remembered("block", (phase, block), draw)

    def _drawn_before(self) -> list[list[int]]:
        """Rows of each manifest before each phase."""
        drawn = [[0] * len(self.sizes)]
        for phase, (start, end) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            blocks, rest = divmod(end - start, BLOCK)
            left = np.bincount(self._block(phase, blocks)[:rest], minlength=len(self.sizes))
            shares = self._shares[phase]
            each = zip(drawn[-1], shares, left.tolist(), strict=True)
            drawn.append([before + blocks * share + more for before, share, more in each])
        return drawn

    def _remembered(self, kind: str, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        kept = self._kept[kind]
        if key not in kept:
            while len(kept) >= KEPT * len(self.sizes):
                del kept[next(iter(kept))]
            kept[key] = make()
        return kept[key]


def apportion(phase: MixtureConfig) -> list[int]:
    """Places of each manifest in a block, by the largest remainders of their weights.

    Raises:
        ConfigError: a manifest has none, though its weight is not 0.
    """
    exact = np.array(phase.weights) / sum(phase.weights) * BLOCK
    shares = np.floor(exact).astype(int)
    largest = np.argsort(shares - exact, kind="stable")[: BLOCK - shares.sum()]
    shares[largest] += 1
    for i, (weight, share) in enumerate(zip(phase.weights, shares, strict=True)):
        if weight > 0 and share == 0:
            raise ConfigError(
                f"data.mixture: weight {weight:g} of data.train[{i}], from step {phase.from_step} "
                f"on, is not one of {BLOCK:,} samples, so none of its rows would be seen; raise "
                "it, or make it 0"
            )
    return shares.tolist()
