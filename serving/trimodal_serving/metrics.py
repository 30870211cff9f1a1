"""What Prometheus sees.

metrics = Metrics(); metrics.of("demo")("decode_seconds", 0.02); body = metrics.render()
"""

from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

from trimodal_serving.caller import Caller
from trimodal_serving.meter import Meter

__all__ = ["CONTENT_TYPE", "Metrics", "Watched"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
_HISTOGRAMS = {
    "queue_wait_seconds": (
        "From the arrival of a sample or output in the queue to its batch.",
        SECONDS,
    ),
    "decode_seconds": ("Opening and tokenising the media of a request.", SECONDS),
    "inference_seconds": ("Of a batch, or of a step of generation.", SECONDS),
    "time_to_first_token_seconds": ("From a request to the first piece of its text.", SECONDS),
    "batch_items": ("Samples of a batch, or outputs of a step of generation.", ITEMS),
    "batch_fill_ratio": ("Tokens of a batch over the token budget; nothing is padded.", SHARES),
}
CANCELLED = "cancelled_"
NONFINITE = "nonfinite_output"


class Watched(Protocol):
    """What computes with a model, as far as its state is shown."""

    @property
    def requests(self) -> int:
        """How many are inside."""
        ...

    @property
    def tokens(self) -> int:
        """Of all that are inside."""
        ...

    def is_ready(self) -> bool:
        """Whether requests are answered."""
        ...


class Metrics:
    """Series of one server in a registry of their own; labels take no value that clients choose.

    A model is called as the operator has it called.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        name = "trimodal_{}".format
        model = ["model"]
        self._histograms = {
            key: Histogram(name(key), text, model, buckets=buckets, registry=registry)
            for key, (text, buckets) in _HISTOGRAMS.items()
        }
        text = "Processes of a model that were replaced."
        self._restarts = Counter(name("worker_restarts"), text, model, registry=registry)
        text = "Work given up since its client left."
        stages = [*model, "stage"]
        self._cancelled = Counter(name("cancelled"), text, stages, registry=registry)
        text = "Requests whose vector or output was not finite, and was not sent."
        self._nonfinite = Counter(name("nonfinite"), text, registry=registry)
        self._rejected = Counter(
            name("rejected"),
            "Requests and connections that were refused, by code.",
            ["reason"],
            registry=registry,
        )
        self._requests = Counter(name("requests"), "Answers.", ["route", "code"], registry=registry)
        self._durations = Histogram(
            name("request_duration_seconds"),
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        tenant, text = ["tenant"], "Of a tenant's requests."
        self._tenant = {
            key: Counter(name(f"tenant_{key}"), text, tenant, registry=registry)
            for key in ("requests", "tokens", "pixels", "audio_seconds")
        }
        text = "Requests inside."
        self._inflight = Gauge(name("inflight"), text, model, registry=registry)
        text = "Tokens of the requests inside."
        self._cost = Gauge(name("queue_cost"), text, model, registry=registry)
        text = "Whether requests are answered."
        self._ready = Gauge(name("ready"), text, model, registry=registry)

    def watch(self, model: str, watched: Watched) -> None:
        """Ask for what changes all the time of a model when somebody looks."""
        self._inflight.labels(model).set_function(lambda: watched.requests)
        self._cost.labels(model).set_function(lambda: watched.tokens)
        self._ready.labels(model).set_function(watched.is_ready)

    def of(self, model: str) -> Meter:
        """What takes the measures of a model that is served; what is not shown is passed over."""
        histograms = {key: one.labels(model) for key, one in self._histograms.items()}
        restarts = self._restarts.labels(model)

        def meter(name: str, value: float) -> None:
            if name in histograms:
                histograms[name].observe(value)
            elif name == "worker_restarts":
                restarts.inc(value)
            elif name.startswith(CANCELLED):
                self._cancelled.labels(model, name.removeprefix(CANCELLED)).inc(value)

        return meter

    def answered(
        self, route: str, status: int, reason: str | None, seconds: float, caller: Caller | None
    ) -> None:
        """Count a request.

        Args:
            route: one of the server's, or `other`.
            status: of the answer.
            reason: the code of a refusal.
            seconds: it took.
            caller: None if it did not get past the door.
        """
        self._requests.labels(route, str(status)).inc()
        self._durations.labels(route).observe(seconds)
        if reason is not None:
            self._rejected.labels(reason).inc()
        if reason == NONFINITE:
            self._nonfinite.inc()
        if caller is None:
            return
        for key, value in {"requests": 1, **vars(caller.usage)}.items():
            if value:  # a refusal, of which there may be many, uses nothing
                self._tenant[key].labels(caller.tenant).inc(value)

    def turned_away(self, reason: str) -> None:
        """Count a connection that was refused before it had a request."""
        self._rejected.labels(reason).inc()

    def render(self) -> bytes:
        """All series as text, see `CONTENT_TYPE`."""
        return generate_latest(self._registry)
