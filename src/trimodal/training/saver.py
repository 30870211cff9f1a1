"""Checkpoints written while training goes on.

with Saver(run.checkpoints, keep=2) as saver: saver.save(step, tensors, state)
"""

import contextlib
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from trimodal.training.checkpoint import save
from trimodal.training.parts import WHOLE, Part

NICENESS = 10
"""Of the thread that writes, so that training has the cores that it computes on."""


def _step_back() -> None:
    """Lower this thread's priority; Linux has one for each thread, and its children inherit it."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class Saver:
    """Copies tensors at once and writes them in a thread, one checkpoint at a time.

    What can be lost to a kill is the checkpoint that is being written: `save` puts it in place when
    it is whole.
    """

    def __init__(self, folder: Path, keep: int, part: Part = WHOLE) -> None:
        self.folder, self.keep, self.part = folder, keep, part
        self._writer = ThreadPoolExecutor(1, "checkpoint", _step_back)
        self._given_up = threading.Event()
        self._pending: Future[Path] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is not None:
            # a rank that is gone would be waited for
            self._given_up.set()
        self._writer.shutdown()
        if failed is None:
            self.wait()

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
    ) -> None:
        """Begin a checkpoint; waits for the one before it.

        Raises:
            StorageError: that one could not be written.
        """
        self.wait()
        copies = {
            stem: {name: x.detach().to("cpu", copy=True) for name, x in named.items()}
            for stem, named in tensors.items()
        }
        self._pending = self._writer.submit(
            save, self.folder, step, copies, state, self.keep, self.part, self._given_up
        )

    def check(self) -> None:
        """Raise at once what a checkpoint that was given up on failed with.

        Raises:
            StorageError: it could not be written.
        """
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Until what was begun is in place.

        Raises:
            StorageError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
