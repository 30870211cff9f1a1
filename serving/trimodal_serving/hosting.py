"""The app, and the processes of the models, the keys and the logs behind it.

app = build_app(Hosting(models={"demo": Setting("runs/demo/model")}))
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trimodal.errors import ConfigError
from trimodal_serving.access import Access
from trimodal_serving.backend import Setting
from trimodal_serving.deadline import REQUEST_SECONDS
from trimodal_serving.errors import ServingError
from trimodal_serving.guard import Guard
from trimodal_serving.hosts import Hosts
from trimodal_serving.keys import KeyFile
from trimodal_serving.ledger import Ledger, UsageLog
from trimodal_serving.nursery import LastingNursery
from trimodal_serving.remote import BATCH_SECONDS
from trimodal_serving.replicas import Replicas

if TYPE_CHECKING:
    from trimodal_serving.metrics import Metrics

Started = Callable[[asyncio.Task[None]], None]


@dataclass(frozen=True, kw_only=True)
class Hosting:
    """What is served, and to whom."""

    models: Mapping[str, Setting]
    """By what clients call them; the first is meant if none is named."""
    replicas: int = 1
    """Processes with each model; all processes share the cores, or take a GPU in turns."""
    max_body_mb: int = 32
    """MiB of a request's body."""
    batch_seconds: float = BATCH_SECONDS
    """After which a batch hangs."""
    request_seconds: float = REQUEST_SECONDS
    """From the head of a request until its answer is computed."""
    keys: str | None = None
    """A file of keys; without one everybody may do everything."""
    usage_log: str | None = None
    indexes: str | None = None
    """A folder."""
    playground: bool = True
    """Whether there is a page for browsers."""
    fetch_from: Sequence[str] = ()
    """Hosts from which media are fetched, see `Hosts`; none if it is empty."""
    telemetry: str | None = None
    """The address of a collector of OpenTelemetry; None leaves it to the environment."""
    anonymous: bool = False
    """Whether, without keys, pages of other sites and callers by any name are let in too."""


def build_app(hosting: Hosting, on_started: Started | None = None) -> Guard:
    """The app; the processes of the models start with it, and are replaced when they die.

    Args:
        hosting: what is served.
        on_started: see `create_app`.

    Raises:
        ConfigError: a library of an extra is missing, or a host or an address is none.
        StorageError: the keys or the log cannot be used.
    """
    try:
        from trimodal_serving.app import create_app
        from trimodal_serving.fetcher import Fetcher
        from trimodal_serving.metrics import Metrics
        from trimodal_serving.spans import send_to
    except ImportError as error:
        raise ConfigError(
            f"the server needs {error.name}: pip install 'trimodal[serving]'"
        ) from error
    if hosting.telemetry is not None:
        send_to(hosting.telemetry)
    access = Access(KeyFile(hosting.keys) if hosting.keys else None, anonymous=hosting.anonymous)
    ledger = Ledger(Metrics(), UsageLog(hosting.usage_log) if hosting.usage_log else None)
    nursery = LastingNursery()
    services = _services(hosting, ledger.metrics, nursery)
    return create_app(
        services,
        hosting.max_body_mb * 1024**2,
        on_started,
        Path(hosting.indexes) if hosting.indexes else None,
        access,
        ledger,
        lambda: _check_room(services),
        nursery.close,
        playground=hosting.playground,
        fetcher=Fetcher(Hosts(hosting.fetch_from)) if hosting.fetch_from else None,
        request_seconds=hosting.request_seconds,
    )


def _services(hosting: Hosting, metrics: "Metrics", nursery: LastingNursery) -> dict[str, Replicas]:
    total = len(hosting.models) * hosting.replicas
    numbers = itertools.count()
    services = {}
    for name, setting in hosting.models.items():
        settings = [
            replace(setting, replica=next(numbers), replicas=total) for _ in range(hosting.replicas)
        ]
        services[name] = Replicas(settings, metrics.of(name), hosting.batch_seconds, nursery)
        metrics.watch(name, services[name])
    return services


def _check_room(services: Mapping[str, Replicas]) -> None:
    """Return unless all models have as much work as they take.

    Raises:
        ServingError: they have.
    """
    refusals = []
    for one in services.values():
        try:
            one.check_room()
        except ServingError as error:
            refusals.append(error)
    if len(refusals) == len(services):
        raise refusals[0]
