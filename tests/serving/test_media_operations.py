from collections.abc import Callable

import httpx
import pytest

from trimodal_serving.media_operations import GENERATION, SEARCH
from trimodal_serving.operations import Operation

Replay = Callable[[Operation], httpx.Response]


@pytest.mark.parametrize("operation", GENERATION, ids=lambda operation: operation.path)
def test_examples_are_answered_as_it_says(operation: Operation, replay: Replay) -> None:
    assert len(replay(operation).content) > 20


def test_examples_of_search_tell_one_story(replay: Replay) -> None:
    answers = {(one.method, one.path): replay(one) for one in SEARCH}
    (found,) = answers["POST", "/v1/search"].json()["data"]
    assert (found["id"], found["metadata"]) == ("a1", {"year": 2024})
    assert answers["POST", "/v1/indexes/{name}/items/delete"].json()["deleted"] == 1
