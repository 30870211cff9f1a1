"""Where the parts of a job are done: here, or in processes; on many machines, see `cluster`.

for count in Processes(4).map(functools.partial(Writing, "shards"), parts): ...
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from trimodal.errors import StorageError, TrimodalError

Part = TypeVar("Part")
Result = TypeVar("Result")
Make = Callable[[], Callable[[Part], Result]]
"""Makes what turns a part into its result; called once in each worker."""


class Workers(Protocol):
    """Do a job part by part; what comes out does not depend on which they are."""

    def map(
        self, make: Make[Part, Result], parts: Iterable[Part], *, gpu: bool = False
    ) -> Iterator[Result]:
        """The results of the parts, in their order.

        Args:
            make: picklable, as parts and results are.
            parts: of the job, independent of each other.
            gpu: a worker may have a GPU of its own, where there are any.

        Raises:
            TrimodalError: that of a part, or the workers are lost.
        """
        ...


@dataclass(frozen=True)
class Processes:
    """Of this machine; a single one is this process."""

    count: int = 1

    def map(
        self, make: Make[Part, Result], parts: Iterable[Part], *, gpu: bool = False
    ) -> Iterator[Result]:
        """The results of the parts, in their order."""
        if self.count <= 1:
            yield from map(make(), parts)
            return
        # global state, such as that of a speech engine, is not shared with what is spawned
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.count, context, initializer=_start, initargs=(make,))
        try:
            yield from pool.map(_do, parts)
        except BrokenProcessPool:
            raise StorageError(
                "a worker process ended early; `--workers 1` needs less memory"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def made(make: Make[Part, Result]) -> Callable[[Part], Result]:
    """What `make` makes; if it fails through a mistake of the user, each part fails as it does.

    A worker that cannot start would be lost without its sentence.
    """
    try:
        return make()
    except TrimodalError as error:
        failure = error

    def fail(_: Part) -> Result:
        raise failure

    return fail


_made: list[Callable[[Any], Any]] = []
"""In a process of a pool, what it does."""


def _start(make: Make[Any, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _made.append(made(make))


def _do(part: Any) -> Any:
    return _made[0](part)
