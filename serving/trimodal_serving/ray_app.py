"""The server as a deployment of Ray Serve, on as many machines as there is work for.

serve run trimodal_serving.ray_app:build model=/models/demo/model keys=/etc/keys.json

Each replica is what `trimodal serve` starts: its own process of the model, which it replaces when
that dies, its own bound on the work inside and its own quotas. Ray's proxy spreads requests.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from trimodal.config import WEIGHTS
from trimodal.errors import ConfigError
from trimodal.schema import Amount, Bounds, Count, Natural, Positive, parse
from trimodal_serving.backend import Setting
from trimodal_serving.command import default_name
from trimodal_serving.deadline import REQUEST_SECONDS
from trimodal_serving.guard import Guard
from trimodal_serving.hosting import Hosting, build_app
from trimodal_serving.hosts import Hosts
from trimodal_serving.logs import log_to_stderr

IN_FLIGHT = 1024
"""Requests that a replica takes before Ray holds them back; its own bound comes long before."""


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """The arguments of `build`."""

    model: str
    """A model folder, at this path on every machine."""
    name: str = ""
    device: str = "auto"
    weights: str = "fp32"
    token_budget: Count = 16_384
    max_body_mb: Count = 32
    keys: str | None = None
    """A file at this path on every machine."""
    anonymous: bool = False
    """Serve without keys, on whatever address Ray's proxy listens."""
    fetch_from: tuple[str, ...] = ()
    """Hosts from which media are fetched, see `Hosts`."""
    request_seconds: Positive = REQUEST_SECONDS
    """From the head of a request until its answer is computed."""
    min_replicas: Count = 1
    max_replicas: Count = 4
    in_flight: Count = 16
    """Requests in a replica, on average, above which there are to be more replicas."""
    settle_seconds: Amount = 300.0
    """How long there must have been less to do before a replica is stopped."""
    cpus: Annotated[float, Bounds(0, above=True)] = 1.0
    gpus: Natural = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: it cannot.
        """
        if self.keys is None and not self.anonymous:
            raise ConfigError(
                "keys: missing; make some with `trimodal keys add`, or say anonymous=true to let "
                "everybody in who reaches the proxy"
            )
        if self.min_replicas > self.max_replicas:
            raise ConfigError("min_replicas: must be at most max_replicas")
        if self.weights not in WEIGHTS:
            raise ConfigError(f"weights: must be one of {', '.join(WEIGHTS)}")
        Hosts(self.fetch_from)


class Replica:
    """One server, started with the app's lifespan."""

    def __init__(self, config: RayConfig) -> None:
        self._config = config
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __serve_build_asgi_app__(self) -> Guard:
        """The app; Ray asks for it once."""
        config = self._config
        log_to_stderr()
        setting = Setting(config.model, config.device, config.token_budget, config.weights)
        hosting = Hosting(
            models={config.name or default_name(Path(config.model)): setting},
            max_body_mb=config.max_body_mb,
            keys=config.keys,
            anonymous=config.anonymous,
            fetch_from=config.fetch_from,
            request_seconds=config.request_seconds,
        )
        return build_app(hosting, self._note)

    def _note(self, starting: "asyncio.Task[None]") -> None:
        if starting.cancelled() or self._started.done():
            return
        error = starting.exception()
        if error is None:
            self._started.set_result(None)
        else:
            self._started.set_exception(error)

    async def check_health(self) -> None:
        """Return once the model is loaded; Ray sends no request before.

        Raises:
            TrimodalError: it cannot be loaded.
        """
        await asyncio.shield(self._started)


def build(arguments: Mapping[str, Any]) -> Application:
    """The application of some arguments, see `RayConfig`.

    Raises:
        ConfigError: one of them cannot be.
    """
    tree = {k: yaml.safe_load(v) if isinstance(v, str) else v for k, v in arguments.items()}
    config = parse(RayConfig, tree, "")
    scaling = AutoscalingConfig(
        min_replicas=config.min_replicas,
        max_replicas=config.max_replicas,
        target_ongoing_requests=config.in_flight,
        downscale_delay_s=config.settle_seconds,
    )
    served = serve.deployment(
        name="trimodal",
        autoscaling_config=scaling,
        max_ongoing_requests=IN_FLIGHT,
        ray_actor_options={"num_cpus": config.cpus, "num_gpus": config.gpus},
    )
    return served(serve.ingress()(Replica)).bind(config)
