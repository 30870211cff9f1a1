from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from trimodal_serving.caller import Caller, Usage
from trimodal_serving.meter import MEASURED
from trimodal_serving.metrics import Metrics


def series(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_what_is_measured_is_shown() -> None:
    metrics = Metrics()
    meter = metrics.of("demo")
    for name in MEASURED:
        meter(name, 2)
    meter("unheard of", 1)
    shown = series(metrics)
    assert shown["trimodal_decode_seconds_sum", "demo"] == 2
    assert shown["trimodal_batch_items_count", "demo"] == 1
    assert shown["trimodal_cancelled_total", "demo", "queue"] == 2
    assert shown["trimodal_worker_restarts_total", "demo"] == 2
    assert not any("unheard" in key[0] for key in shown)


def test_requests_are_counted_by_route_and_tenant() -> None:
    metrics = Metrics()
    caller = Caller("alice", usage=Usage(7, 64, 1.5))
    metrics.answered("/v1/embeddings", 200, None, 0.1, caller)
    metrics.answered("/v1/embeddings", 429, "quota", 0.1, caller)
    metrics.answered("other", 401, "missing_api_key", 0.1, None)
    shown = series(metrics)
    assert shown["trimodal_requests_total", "200", "/v1/embeddings"] == 1
    assert shown["trimodal_requests_total", "401", "other"] == 1
    assert shown["trimodal_rejected_total", "quota"] == 1
    assert shown["trimodal_tenant_requests_total", "alice"] == 2
    assert shown["trimodal_tenant_tokens_total", "alice"] == 14
    assert shown["trimodal_tenant_audio_seconds_total", "alice"] == 3


@dataclass
class Busy:
    requests: int
    tokens: int
    ready: bool

    def is_ready(self) -> bool:
        return self.ready


def test_what_changes_all_the_time_is_asked_for() -> None:
    metrics, busy = Metrics(), Busy(0, 0, ready=False)
    metrics.watch("demo", busy)
    busy.requests, busy.tokens, busy.ready = 3, 400, True
    shown = series(metrics)
    assert shown["trimodal_inflight", "demo"] == 3
    assert shown["trimodal_queue_cost", "demo"] == 400
    assert shown["trimodal_ready", "demo"] == 1


def test_models_are_told_apart() -> None:
    metrics = Metrics()
    metrics.watch("demo", Busy(0, 0, ready=True))
    metrics.watch("scenes", Busy(0, 0, ready=False))
    one, _ = metrics.of("demo"), metrics.of("scenes")
    one("worker_restarts", 1)
    one("inference_seconds", 0.1)
    shown = series(metrics)
    assert [shown["trimodal_ready", name] for name in ("demo", "scenes")] == [1, 0]
    restarts = [shown["trimodal_worker_restarts_total", name] for name in ("demo", "scenes")]
    assert restarts == [1, 0], "there from the beginning, so that an increase is seen"
    assert shown["trimodal_inference_seconds_count", "scenes"] == 0
