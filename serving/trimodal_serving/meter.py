"""What is measured where work is done, by name; `metrics` shows it to Prometheus.

meter("decode_seconds", 0.02)
"""

from collections.abc import Callable

Meter = Callable[[str, float], None]
MEASURED = (
    "queue_wait_seconds",
    "decode_seconds",
    "inference_seconds",
    "batch_items",
    "computed_tokens",
    "computed_seconds",
    "batch_fill_ratio",
    "worker_restarts",
    "cancelled_decode",
    "cancelled_queue",
    "cancelled_generation",
    "failed_batches",
)
"""Names that the engine uses; what is counted is worth 1 each time. `failed_batches` is how many in
a row the model failed on, and is for whoever may replace it; `computed_seconds` follows
`computed_tokens`, and both say how fast work leaves."""


def unmeasured(_: str, __: float) -> None:
    """The meter where nobody looks."""
