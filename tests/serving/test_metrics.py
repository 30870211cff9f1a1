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
    for name in MEASURED:
        metrics.meter(name, 2)
    metrics.meter("unheard of", 1)
    shown = series(metrics)
    assert shown["trimodal_decode_seconds_sum",] == 2
    assert shown["trimodal_batch_items_count",] == 1
    assert shown["trimodal_cancelled_total", "queue"] == 2
    assert shown["trimodal_worker_restarts_total",] == 2
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


def test_what_changes_all_the_time_is_asked_for() -> None:
    metrics = Metrics()
    metrics.watch(lambda: 3, lambda: 400, lambda: True)
    shown = series(metrics)
    assert shown["trimodal_inflight",] == 3
    assert shown["trimodal_queue_cost",] == 400
    assert shown["trimodal_ready",] == 1
