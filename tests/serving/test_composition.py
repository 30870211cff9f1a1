from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.batch import Modality, Sample
from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding
from trimodal.models.generation import Generation, Request, check_room, default_decoding
from trimodal_serving.composition import Composition, Outcome, Task, failure, passes
from trimodal_serving.errors import ServingError

MakeSample = Callable[[str], Sample]


def tasks(model: TrimodalModel, samples: list[Sample], to: Modality, **changes: Any) -> list[Task]:
    request, decoding = Request(to=to), replace(default_decoding(to), **changes)
    room = check_room(model, request, decoding)
    return [Task(sample, None, request, decoding, 5 + i, room) for i, sample in enumerate(samples)]


def composition(model: TrimodalModel, tasks: Sequence[Task]) -> Composition:
    made = Composition(model, tasks[0].kind)
    made.add(dict(enumerate(tasks)))
    return made


def finished(composition: Composition, number: int) -> tuple[list[Any], list[Any]]:
    """What each step said, and so many results in the order of their numbers."""
    said, done = [], {}
    while len(done) < number:
        outcome = composition.step()
        assert outcome.error is None
        said.append(outcome.grown)
        done |= outcome.done
    return said, [done[i] for i in range(number)]


@pytest.mark.parametrize("to", Modality)
def test_outputs_are_the_library_s(
    model: TrimodalModel, text_sample: MakeSample, to: Modality
) -> None:
    samples = [text_sample("red"), text_sample("the square is blue")]
    said, results = finished(composition(model, tasks(model, samples, to)), 2)
    expected = model.generate(text=["red", "the square is blue"], to=to.data_name, seed=5)
    for result, one in zip(results, expected, strict=True):
        assert not isinstance(result, ServingError)
        assert np.array_equal(result.output, one)
    assert all(grown.final <= len(grown.ids) for step in said for grown in step.values())
    if to is not Modality.TEXT:
        assert 0 < len(said) <= default_decoding(to).steps
        ids = [result.target.ids.tolist() for result in results if isinstance(result, Generation)]
        last = {i: list(seen.ids) for step in said for i, seen in step.items()}
        assert [last[i] for i in range(2)] == ids


def test_texts_grow_by_a_piece_a_step(model: TrimodalModel, text_sample: MakeSample) -> None:
    made = tasks(model, [text_sample("red")], Modality.TEXT, max_tokens=5)
    said, (result,) = finished(composition(model, made), 1)
    assert not isinstance(result, ServingError)
    ids = tuple(result.target.ids.tolist())
    assert said == [{0: (ids[: i + 1], i + 1)} for i in range(5)]


def test_others_join_and_leave_between_two_steps(
    model: TrimodalModel, text_sample: MakeSample
) -> None:
    samples = [text_sample(text) for text in ("red", "blue", "white", "the square is blue")]
    made = tasks(model, samples, Modality.TEXT, max_tokens=6)
    together = Composition(model, made[0].kind)
    together.add({0: made[0], 1: made[1]})
    sizes = [{i: one.final for i, one in together.step().grown.items()}]
    together.add({2: made[2], 3: made[3]})
    together.drop([1, 3])
    done: dict[int, Any] = {}
    for _ in range(6):
        outcome = together.step()
        sizes.append({i: one.final for i, one in outcome.grown.items()})
        done |= outcome.done
    assert sizes[:3] == [{0: 1, 1: 1}, {0: 2, 2: 1}, {0: 3, 2: 2}]
    assert together.step() == Outcome()
    for i, one in done.items():
        alone = finished(composition(model, [made[i]]), 1)[1][0]
        assert one.target.ids.tolist() == alone.target.ids.tolist()
    assert done.keys() == {0, 2}


def test_what_cannot_begin_fails_by_itself(
    model: TrimodalModel, text_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tasks(model, [text_sample("red"), text_sample("blue")], Modality.TEXT, max_tokens=3)
    together = composition(model, made[:1])
    together.step()
    together.add({1: made[1]})
    with monkeypatch.context() as patch:
        patch.setattr("trimodal.models.generation.Prefix", None)
        outcome = together.step()
    assert outcome.failed == [1]
    assert failure(outcome.error).code == "internal"
    assert together.step().grown.keys() == {0}


def test_a_broken_model_makes_no_output(scripted: Any, text_sample: MakeSample) -> None:
    made = tasks(scripted, [text_sample("red"), text_sample("blue")], Modality.TEXT)
    together = composition(scripted, made)
    together.step()
    scripted.continuations = lambda h_ND: torch.full((len(h_ND), 513), torch.nan)
    outcome = together.step()
    assert sorted(outcome.failed) == [0, 1]
    assert failure(outcome.error).code == "nonfinite_output"
    assert together.step() == Outcome(), "what failed is given up"


def test_what_a_task_costs(text_sample: MakeSample) -> None:
    sample = text_sample("red")
    text = Task(sample, None, Request(to=Modality.TEXT), Decoding(), 0, room=10)
    assert text.held == text.cost == 2 * sample.num_tokens + 10
    picture = Task(sample, None, Request(to=Modality.VISION), Decoding(guidance=2), 0, room=10)
    assert passes(picture.request, picture.decoding) == 8
    assert picture.cost == 2 * (2 * sample.num_tokens + 80)
    other = Task(sample, None, Request(to=Modality.TEXT, lang="zh"), Decoding(max_tokens=3), 1, 3)
    assert text.kind == other.kind
    assert len({text.kind, picture.kind, replace(picture, decoding=Decoding()).kind}) == 3
