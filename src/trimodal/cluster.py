"""The parts of a job on a Ray cluster, for corpora beyond one machine.

for vectors in Cluster("local").map(make, parts, gpu=True): ...
"""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from trimodal.errors import ConfigError, StorageError, TrimodalError
from trimodal.workers import Make, Part, Result, made

LOCAL = "local"
OBJECT_STORE = 256 * 2**20
"""Bytes in the memory of this machine for parts and results under way; more goes to its disk."""
REACH_SECONDS = 10
STARTS = 3
"""Tries to start a local cluster; Ray gives its helpers 15 seconds, however busy a machine is."""


@dataclass(frozen=True)
class Cluster:
    """Workers of Ray Data; every machine needs this package and the files that are named."""

    address: str = LOCAL
    """Of a cluster that runs, as `ray.init` takes it, or `local` for one of this machine alone."""

    cpus: int | None = None
    """Of a local cluster; those of this machine if none are given."""

    def connect(self) -> None:
        """Connect this process to the cluster, or start a local one, unless that was done before.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster at the address.
            StorageError: a local one does not start.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ConfigError(
                "--ray needs ray, which is not installed: pip install 'trimodal[ray]'"
            ) from error
        _check_reachable(self.address)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == LOCAL:
            quiet |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
            quiet |= {"num_cpus": self.cpus}
        for left in reversed(range(STARTS if self.address == LOCAL else 1)):
            if ray.is_initialized():
                return
            try:
                ray.init(self.address, **quiet)
            except Exception as error:  # Ray raises nearly anything where it cannot
                if left:
                    ray.shutdown()
                    continue
                cause = str(error).strip().split("\n")[0]
                if self.address == LOCAL:
                    raise StorageError(f"--ray: no cluster could be started: {cause}") from error
                raise ConfigError(f"--ray: no cluster at {self.address}: {cause}") from error

    def map(
        self, make: Make[Part, Result], parts: Iterable[Part], *, gpu: bool = False
    ) -> Iterator[Result]:
        """The results of the parts, in their order, by actors of one CPU, or of one GPU each.

        Raises:
            ConfigError: as `connect`.
            StorageError: as `connect`, or Ray has lost the workers too often.
            TrimodalError: that of a part.
        """
        self.connect()
        import ray
        from ray.data import ActorPoolStrategy, from_items
        from ray.exceptions import RayActorError, RaySystemError

        _hush()
        given = [{"part": _Opaque(part)} for part in parts]
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0)) if gpu else 0
        most = max(1, min(gpus or int(there.get("CPU", 1)), len(given)))
        done = from_items(given, override_num_blocks=len(given)).map(
            _worker(make),
            compute=ActorPoolStrategy(min_size=1, max_size=most),
            num_gpus=1 if gpus else None,
        )
        try:
            for row in done.iter_rows():
                result = row["result"].value
                if isinstance(result, TrimodalError):
                    raise result
                yield result
        except (RayActorError, RaySystemError) as error:
            cause = str(error).strip().split("\n")[0]
            raise StorageError(f"the workers of the cluster ended early: {cause}") from error


@dataclass(frozen=True, slots=True)
class _Opaque:
    """Keeps Ray from making columns of what is in it, which would not come back as it was."""

    value: Any


def _worker(make: Make[Any, Any]) -> Callable[..., Any]:
    folder = os.getcwd()

    class Worker:
        """What an actor does; errors that users cause are values, as of loader processes."""

        def __init__(self) -> None:
            with contextlib.suppress(OSError):  # addresses of fsspec need no folder
                os.chdir(folder)  # so that paths mean the same
            self.do = made(make)

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            try:
                return {"result": _Opaque(self.do(row["part"].value))}
            except TrimodalError as error:
                return {"result": _Opaque(error)}

    return Worker


def _check_reachable(address: str) -> None:
    """Ray would try for minutes.

    Raises:
        ConfigError: nobody listens at a host and port.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--ray: no cluster at {address}: {error}") from error


def _hush() -> None:
    """Progress is told by whoever asked, and in the order of the parts."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
