"""The tensors of a checkpoint: whole, or cut by rows into the parts of several writers.

parts = Parts([folder / "model-00001-of-00002.safetensors", ...])
parts["trunk.blocks.0.mlp.up_proj.weight"]
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Which of the writers of a checkpoint one is."""

    rank: int = 0
    count: int = 1
    launch: str = ""
    """The same for all writers that were started together, and for no others."""

    def file(self, stem: str) -> str:
        """The name of its file of some tensors."""
        if self.count == 1:
            return f"{stem}.safetensors"
        return f"{stem}-{self.rank + 1:05d}-of-{self.count:05d}.safetensors"


WHOLE = Part()
"""The only writer."""


def stem_of(path: Path) -> str:
    """What the tensors of a file are called in all, see `Part.file`."""
    stem, _, count = path.stem.rpartition("-of-")
    return stem.rpartition("-")[0] if count.isdigit() else path.stem


class Parts(Mapping[str, Tensor]):
    """Tensors by name, read when they are asked for.

    The rows of a tensor are those of the first file, then those of the second, and so on; what has
    no rows is in the first alone.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._holders: dict[str, list[Any]] = {}
        for path in sorted(files):
            opened = safe_open(path, "pt")
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                self._holders.setdefault(name, []).append(opened)

    def __getitem__(self, name: str) -> Tensor:
        found = [holder.get_tensor(name) for holder in self._holders[name]]
        return torch.cat(found) if len(found) > 1 else found[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of a tensor, without reading the others."""
        found, first = [], 0
        for holder in self._holders[name]:
            rows = holder.get_slice(name)
            size = rows.get_shape()[0]
            a, b = max(start - first, 0), min(stop - first, size)
            # an empty range in the first keeps shape and type where there is nothing to read
            if a < b or not found:
                found.append(rows[min(a, size) : max(min(a, size), b)])
            first += size
        return torch.cat(found)
