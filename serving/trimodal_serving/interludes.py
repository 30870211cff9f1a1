"""Small work that is done between two blocks of a model, while it is at something longer.

interludes = Interludes(compute); interludes.watch(model)
interludes.begin(seconds=0.2); interludes.add(job, seconds=0.01); interrupted = interludes.end()
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle

LEAST_SECONDS = 0.015
"""What is shorter is waited for by those who come meanwhile."""
SHARE = 1.0
"""Of the time of what is longer, what may be computed for others meanwhile at most."""

J = TypeVar("J")


class Interludes(Generic[J]):
    """Jobs that the thread of the model takes up when it is through with a part of a block.

    A forward pass cannot be given up half-way without losing it, but it can wait: nothing that it
    holds is touched by another one in the same thread.
    """

    def __init__(self, compute: Callable[[list[J]], None]) -> None:
        """Begin with none, and with no model.

        Args:
            compute: run in the thread of the model, with jobs that no other has; must not raise.
        """
        self._compute = compute
        self._waiting: deque[J] = deque()
        self._inside = False
        self._interrupted = 0.0
        self._hooks: list[RemovableHandle] = []
        self.room = 0.0
        """Seconds for which what is running can still be interrupted."""

    def watch(self, model: "nn.Module") -> None:
        """Do what waits before each block of a model, and in the middle of it."""
        from trimodal.models.layers import Block

        blocks = [module for module in model.modules() if isinstance(module, Block)]
        for module in [*blocks, *(block.mlp for block in blocks)]:
            self._hooks.append(module.register_forward_pre_hook(self._pass))

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, seconds: float) -> None:
        """Something is computed that takes about as long."""
        self._interrupted = 0.0
        self.room = SHARE * seconds if self._hooks and seconds >= LEAST_SECONDS else 0.0

    def end(self) -> float:
        """It is done; returns the seconds for which it was interrupted."""
        self.room = 0.0
        return self._interrupted

    def add(self, job: J, seconds: float) -> None:
        """Have something done soon that takes about as long, or taken back."""
        self.room -= seconds
        self._waiting.append(job)

    def took(self, seconds: float) -> None:
        """Count an interlude."""
        self._interrupted += seconds

    def take(self) -> list[J]:
        """All that was not begun, from any thread; nobody else gets it then."""
        jobs = []
        while True:
            try:
                jobs.append(self._waiting.popleft())
            except IndexError:
                return jobs

    def _pass(self, *_: Any) -> None:
        if not self._waiting or self._inside:
            return
        self._inside = True
        try:
            if jobs := self.take():
                self._compute(jobs)
        finally:
            self._inside = False

    def close(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
