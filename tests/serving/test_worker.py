from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.batch import Sample
from trimodal.models import TrimodalModel
from trimodal.testing import assert_close
from trimodal_serving.errors import ServingError
from trimodal_serving.worker import Worker

WORDS = ["red", "green", "blue", "white", "a red square", "the square is blue", "红色的方块"]
MakeSample = Callable[[str], Sample]


def codes(results: list[np.ndarray | ServingError]) -> list[str | None]:
    return [result.code if isinstance(result, ServingError) else None for result in results]


def test_vectors_are_the_model_s(model: TrimodalModel, text_sample: MakeSample) -> None:
    results = Worker(model, 16_384)([text_sample(word) for word in WORDS])
    assert codes(results) == [None] * len(WORDS)
    vectors = np.stack([result for result in results if isinstance(result, np.ndarray)])
    assert_close(vectors, model.embed(text=WORDS)["fused"], "served-vs-offline")


@pytest.mark.parametrize("bad", [{"blue"}, {"red", "white"}, set(WORDS)], ids=len)
def test_only_samples_that_raise_fail(
    scripted: Any, text_sample: MakeSample, bad: set[str]
) -> None:
    scripted.raises = lambda sample: sample.id in bad
    results = Worker(scripted, 16_384)([text_sample(word) for word in WORDS])
    assert codes(results) == ["internal" if word in bad else None for word in WORDS]


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("CUDA error")], ids=type
)
def test_memory_or_a_device_that_fails_is_an_error_and_no_vector(
    model: TrimodalModel, text_sample: MakeSample, error: Exception
) -> None:
    class Failing:
        processor, architecture, config = model.processor, model.architecture, model.config

        def embed_samples(self, samples: Any, token_budget: int = 0) -> dict[str, np.ndarray]:
            raise error

    (result,) = Worker(Failing(), 16_384)([text_sample("red")])
    assert isinstance(result, ServingError)
    assert (result.code, result.__cause__) == ("internal", error)


def test_halving_needs_few_batches(scripted: Any, text_sample: MakeSample) -> None:
    scripted.raises = lambda sample: sample.id == "17"
    Worker(scripted, 16_384)([text_sample(str(i)) for i in range(64)])
    assert len(scripted.batches) == 13  # all, then two halves for each of six halvings


def test_a_broken_vector_is_tried_alone_and_then_an_error(
    scripted: Any, text_sample: MakeSample
) -> None:
    scripted.broken = lambda sample: sample.id == "blue"
    results = Worker(scripted, 16_384)([text_sample(word) for word in WORDS])
    assert codes(results) == ["nonfinite_output" if word == "blue" else None for word in WORDS]
    assert scripted.batches == [WORDS, ["blue"]]


def test_a_vector_that_was_broken_by_its_neighbours_is_served(
    scripted: Any, text_sample: MakeSample
) -> None:
    scripted.broken = lambda sample: sample.id == "blue" and len(scripted.batches) == 1
    results = Worker(scripted, 16_384)([text_sample(word) for word in WORDS])
    assert codes(results) == [None] * len(WORDS)


def test_a_vector_that_is_not_of_unit_norm_is_broken(
    model: TrimodalModel, text_sample: MakeSample
) -> None:
    class Shrinking:
        processor, architecture, config = model.processor, model.architecture, model.config

        def embed_samples(self, samples: Any, token_budget: int = 0) -> dict[str, np.ndarray]:
            return {"fused": 0 * model.embed_samples(samples)["fused"]}

    assert codes(Worker(Shrinking(), 16_384)([text_sample("red")])) == ["nonfinite_output"]


def test_the_cause_is_kept_for_the_log_and_not_answered(
    scripted: Any, text_sample: MakeSample
) -> None:
    scripted.raises = lambda _: True
    (result,) = Worker(scripted, 16_384)([text_sample("red")])
    assert isinstance(result, ServingError)
    assert "secret" in str(result.__cause__)
    assert "secret" not in str(result.envelope())
