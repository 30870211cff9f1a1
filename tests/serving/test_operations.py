from collections.abc import Callable

import httpx
import pytest

from trimodal_serving.operations import ALIASES, EMBEDDINGS, HEALTH, KSERVE, TOKENS, Operation


@pytest.mark.parametrize(
    "operation",
    [*HEALTH, *EMBEDDINGS, *TOKENS, *KSERVE, *ALIASES],
    ids=lambda operation: f"{operation.method} {operation.path}",
)
def test_examples_are_answered_as_it_says(
    operation: Operation, replay: Callable[[Operation], httpx.Response]
) -> None:
    assert replay(operation).headers["x-request-id"]
