"""The app, and the process of the model, the keys and the logs behind it.

app = build_app(Hosting(name="demo", setting=Setting("runs/demo/model")))
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trimodal.errors import ConfigError
from trimodal_serving.access import Access
from trimodal_serving.backend import Setting
from trimodal_serving.guard import Guard
from trimodal_serving.keys import KeyFile
from trimodal_serving.ledger import Ledger, UsageLog
from trimodal_serving.remote import BATCH_SECONDS
from trimodal_serving.replicas import Replicas

Started = Callable[[asyncio.Task[None]], None]


@dataclass(frozen=True, kw_only=True)
class Hosting:
    """What is served, and to whom."""

    name: str
    """What clients call the model."""
    setting: Setting
    replicas: int = 1
    """Processes with the model."""
    max_body_mb: int = 32
    """MiB of a request's body."""
    batch_seconds: float = BATCH_SECONDS
    """After which a batch hangs."""
    keys: str | None = None
    """A file of keys; without one everybody may do everything."""
    usage_log: str | None = None
    indexes: str | None = None
    """A folder."""
    playground: bool = True
    """Whether there is a page for browsers."""
    anonymous: bool = False
    """Whether, without keys, pages of other sites and callers by any name are let in too."""


def build_app(hosting: Hosting, on_started: Started | None = None) -> Guard:
    """The app; the process of the model starts with it, and is replaced when it dies.

    Args:
        hosting: what is served.
        on_started: see `create_app`.

    Raises:
        ConfigError: a library of the extra is missing.
        StorageError: the keys or the log cannot be used.
    """
    try:
        from trimodal_serving.app import create_app
        from trimodal_serving.metrics import Metrics
    except ImportError as error:
        raise ConfigError(
            f"the server needs {error.name}: pip install 'trimodal[serving]'"
        ) from error
    access = Access(KeyFile(hosting.keys) if hosting.keys else None, anonymous=hosting.anonymous)
    ledger = Ledger(Metrics(), UsageLog(hosting.usage_log) if hosting.usage_log else None)
    engine = Replicas(
        hosting.setting, ledger.metrics.meter, hosting.batch_seconds, hosting.replicas
    )
    ledger.metrics.watch(lambda: engine.requests, lambda: engine.tokens, engine.is_ready)
    return create_app(
        engine,
        hosting.name,
        hosting.max_body_mb * 1024**2,
        on_started,
        Path(hosting.indexes) if hosting.indexes else None,
        access,
        ledger,
        engine.check_room,
        playground=hosting.playground,
    )
