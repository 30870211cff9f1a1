from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.batch import Modality, Sample
from trimodal.errors import NumericError
from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding
from trimodal.models.generation import Generation, Request, check_room, default_decoding
from trimodal_serving.composition import Composition, Results, Task, passes
from trimodal_serving.errors import ServingError

MakeSample = Callable[[str], Sample]


def tasks(model: TrimodalModel, samples: list[Sample], to: Modality, **changes: Any) -> list[Task]:
    request, decoding = Request(to=to), replace(default_decoding(to), **changes)
    room = check_room(model, request, decoding)
    return [Task(sample, None, request, decoding, 5 + i, room) for i, sample in enumerate(samples)]


def finished(composition: Composition) -> tuple[list[Any], Results]:
    """What each step said, and the results."""
    said = []
    while not isinstance(outcome := composition.step(), list):
        said.append(outcome)
    return said, outcome


@pytest.mark.parametrize("to", Modality)
def test_outputs_are_the_library_s(
    model: TrimodalModel, text_sample: MakeSample, to: Modality
) -> None:
    samples = [text_sample("red"), text_sample("the square is blue")]
    said, results = finished(Composition(model, tasks(model, samples, to), 16_384))
    expected = model.generate(text=["red", "the square is blue"], to=to.data_name, seed=5)
    for result, one in zip(results, expected, strict=True):
        assert not isinstance(result, ServingError)
        assert np.array_equal(result.output, one)
    if to is not Modality.TEXT:
        assert len(said) == default_decoding(to).steps
        ids = [result.target.ids.tolist() for result in results if isinstance(result, Generation)]
        assert [list(said[-1][i]) for i in range(2)] == ids


def test_texts_grow_by_a_piece_a_step(model: TrimodalModel, text_sample: MakeSample) -> None:
    made = tasks(model, [text_sample("red")], Modality.TEXT, max_tokens=5)
    said, (result,) = finished(Composition(model, made, 16_384))
    assert not isinstance(result, ServingError)
    ids = tuple(result.target.ids.tolist())
    assert said == [{0: ids[: i + 1]} for i in range(5)]


def test_a_broken_model_makes_no_output(scripted: Any, text_sample: MakeSample) -> None:
    scripted.continuations = lambda h_ND: torch.full((len(h_ND), 513), torch.nan)
    made = tasks(scripted, [text_sample("red"), text_sample("blue")], Modality.TEXT)
    (result,) = finished(Composition(scripted, made[:1], 16_384))[1]
    assert isinstance(result, ServingError)
    assert result.code == "nonfinite_output"
    with pytest.raises(NumericError):
        Composition(scripted, made, 16_384).step()


def test_what_a_task_costs(text_sample: MakeSample) -> None:
    sample = text_sample("red")
    text = Task(sample, None, Request(to=Modality.TEXT), Decoding(), 0, room=10)
    assert text.held == text.cost == 2 * sample.num_tokens + 10
    picture = Task(sample, None, Request(to=Modality.VISION), Decoding(guidance=2), 0, room=10)
    assert passes(picture.request, picture.decoding) == 8
    assert picture.cost == 2 * (2 * sample.num_tokens + 80)
    assert text.kind != picture.kind
