"""The steps of a rank in order, from loader processes that may die or hang.

for batches in load_steps(feed, first=0, last=1000, data=config.data): ...
"""

import multiprocessing
import sys
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from trimodal.batch import Batch
from trimodal.config import DataConfig
from trimodal.errors import StoppedError, TrimodalError
from trimodal.training.feed import StepFeed
from trimodal.training.signals import follow_parent

MOST_RESTARTS = 3
"""Of loader processes in one run of the command; more are no accident."""
DIED = "DataLoader worker (pid"
"""How torch begins to say that a process is gone."""
LOOK_SECONDS = 0.5
"""Between two looks whether one is gone while a batch is awaited; those of torch are five."""


class _LostError(Exception):
    """What became of loader processes."""


class _Loading(_MultiProcessingDataLoaderIter):
    """Tells of a lost process soon, and when it is asked for a batch.

    torch would raise from its signal handler as well, anywhere in the midst of a step, and the
    handler may be there already, set by a loader of someone else.
    """

    def __init__(self, loader: DataLoader[list[Batch] | TrimodalError]) -> None:
        super().__init__(loader)
        if self._worker_pids_set:
            _remove_worker_pids(id(self))
            self._worker_pids_set = False

    def _try_get_data(self, timeout: float = LOOK_SECONDS) -> Any:
        return super()._try_get_data(timeout)


def load_steps(feed: StepFeed, first: int, last: int, data: DataConfig) -> Iterator[list[Batch]]:
    """What a rank computes in the steps from `first` up to `last`.

    Loader processes that die or hang are replaced; a step is a pure function of its number, so the
    new ones go on as the lost ones would have.

    Raises:
        DataError: a medium cannot be used.
        StoppedError: they were lost too often.
    """
    step, restarts = first, 0
    while step < last:
        others = _children()
        try:
            for batches in _delivered(feed, step, last, data, others):
                if isinstance(batches, TrimodalError):
                    raise batches
                yield batches
                step += 1
        except _LostError as error:
            _kill(others)
            if restarts == MOST_RESTARTS:
                raise StoppedError(
                    f"step {step + 1} cannot be loaded: {error}, for the {restarts + 1}th time; "
                    "the same command goes on from the last checkpoint"
                ) from None
            restarts += 1
            print(
                f"trimodal: {error}; new ones go on with step {step + 1}",
                file=sys.stderr,
                flush=True,
            )


def _delivered(
    feed: StepFeed, first: int, last: int, data: DataConfig, others: set[BaseProcess]
) -> Iterator[list[Batch] | TrimodalError]:
    workers = data.num_workers
    loader = DataLoader[list[Batch] | TrimodalError](
        feed,
        sampler=range(first, last),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=follow_parent if workers else None,
    )
    iterator = _Loading(loader) if workers else iter(loader)
    while True:
        # one that hangs may do so while it hands over a batch, where no wait of ours would end
        patience = threading.Timer(data.loader_seconds, _kill, [others])
        patience.daemon = True
        if workers and data.loader_seconds:
            patience.start()
        try:
            batches = next(iterator)
        except StopIteration:
            return
        except (ConnectionError, EOFError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not str(error).startswith(DIED):
                raise
            silent = f"were silent for {data.loader_seconds:g} s"
            cause = silent if patience.finished.is_set() else "ended unexpectedly"
            raise _LostError(f"loader processes {cause}") from error
        finally:
            patience.cancel()
        yield batches


def _kill(others: set[BaseProcess]) -> None:
    """End the processes that are not among those that were there before."""
    for child in _children() - others:
        child.kill()


def _children() -> set[BaseProcess]:
    return set(multiprocessing.active_children())
