from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from trimodal.batch import Modality, Sample
from trimodal.models import TrimodalModel
from trimodal.models import generation as module
from trimodal.models.decoding import Decoding
from trimodal.models.generation import Outputs, Request, Wanted, generate
from trimodal.models.redraws import Redraws
from trimodal.processors import TrimodalProcessor
from trimodal.streams import generator
from trimodal.testing import assert_close

V, T, S = Modality
PICTURE = generator("picture").integers(0, 256, (8, 8, 3), dtype=np.uint8)
OTHER = generator("another").integers(0, 256, (8, 8, 3), dtype=np.uint8)
WAVE = np.sin(np.arange(8000) ** 1.5 / 900).astype(np.float32)
HISS = generator("hiss").normal(0, 0.1, 8000).astype(np.float32)


@pytest.fixture
def processor(model: TrimodalModel) -> TrimodalProcessor:
    assert model.processor is not None
    return model.processor


def observed(processor: TrimodalProcessor) -> Sample:
    rate = processor.speech.config.sample_rate
    (sample,) = processor(image=[PICTURE], text=["seven"], speech=[(WAVE, rate)])
    return sample


@pytest.mark.parametrize(
    ("to", "copy", "other"),
    [
        (V, PICTURE, OTHER),
        (V, PICTURE // 2 + 9, 255 - PICTURE),
        (S, WAVE, HISS),
        (S, WAVE / 3, HISS),
    ],
    ids=["picture", "paler", "speech", "lower"],
)
def test_a_copy_is_drawn_again(
    processor: TrimodalProcessor, to: Modality, copy: np.ndarray, other: np.ndarray
) -> None:
    """Each time with another seed, at most as often as it is allowed."""
    redraws, decoding = Redraws(processor, to), Decoding(redraws=2)
    sample = observed(processor)
    redraws.watch(4, sample, decoding, 3)
    redraws.watch(7, sample, replace(decoding, redraws=5), 5)
    first = redraws.copied({4: copy, 7: other})
    assert list(first) == [4]
    second = redraws.copied({4: copy})
    assert len({3, first[4], second[4]}) == 3
    assert redraws.copied({4: copy}) == {}
    assert redraws.copied({7: copy}) == {}, "what was let be is watched no more"
    redraws.watch(8, sample, decoding, 3)
    assert redraws.copied({8: copy}) == {8: first[4]}
    redraws.forget([8, 9])
    assert redraws.copied({8: copy}) == {}


def test_what_fills_the_last_token_up_is_not_compared(processor: TrimodalProcessor) -> None:
    """A recording is all of itself, however many frames of its last token are there."""
    rate, redraws = processor.speech.config.sample_rate, Redraws(processor, S)
    padded = set()
    for size in range(7000, 8000, 80):
        (sample,) = processor(speech=[(WAVE[:size], rate)])
        frames = processor.speech.frames(torch.from_numpy(WAVE[:size]))
        padded.add(len(sample.media[S].features) - len(frames))
        assert_close(redraws._likeness(sample.media[S], WAVE[:size]), 1.0, "fp32")
    assert len(padded) > 2


def test_silence_is_a_copy_of_nothing(processor: TrimodalProcessor) -> None:
    silence, rate = np.zeros(8000, np.float32), processor.speech.config.sample_rate
    (sample,) = processor(speech=[(silence, rate)])
    redraws = Redraws(processor, S)
    redraws.watch(0, sample, Decoding(), 3)
    assert redraws.copied({0: silence}) == {}


def test_some_are_never_drawn_again(processor: TrimodalProcessor) -> None:
    """Without draws they would be the same; what is not observed cannot be copied."""
    sample = observed(processor)
    blind = replace(sample, media={T: sample.media[T]})
    fixed = Decoding(temperature=0.0, choice_temperature=0.0)
    for decoding, seen in ((fixed, sample), (Decoding(redraws=0), sample), (Decoding(), blind)):
        redraws = Redraws(processor, V)
        redraws.watch(0, seen, decoding, 3)
        assert redraws.copied({0: PICTURE}) == {}
    texts = Redraws(processor, T)
    texts.watch(0, sample, Decoding(), 3)
    assert texts.copied({0: "seven"}) == {}


@pytest.mark.parametrize("to", [V, S])
def test_what_is_drawn_again_is_what_its_seed_gives(
    lively: TrimodalModel, conditions: list[Sample], to: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three is begun again between two steps; the others go on untouched."""
    samples = [sample for sample in conditions if to in sample.media][:3]
    request, decoding = Request(to=to, lang="en"), Decoding(guidance=1.5)
    left = [
        one.target.ids.tolist()
        for one in generate(lively, samples, request, replace(decoding, redraws=0), [1, 2, 3])
    ]
    redrawn: list[int] = []

    class Once(Redraws):
        """Takes the first output of the second sample for a copy."""

        def _likeness(self, given: object, output: np.ndarray) -> float:
            mine = given is samples[1].media[to] and not redrawn
            return 1.0 if mine else 0.0

        def copied(self, made: Mapping[int, str | np.ndarray]) -> dict[int, int]:
            again = super().copied(made)
            redrawn.extend(again.values())
            return again

    monkeypatch.setattr(module, "Redraws", Once)
    outputs = Outputs(lively.eval(), to)
    outputs.add({i: Wanted(samples[i], request, decoding, i + 1) for i in range(3)})
    found: dict[int, list[int]] = {}
    while len(outputs):
        found |= {i: one.target.ids.tolist() for i, one in outputs.step()[1].items()}
    (seed,) = redrawn
    (alone,) = generate(lively, samples[1:2], request, replace(decoding, redraws=0), [seed])
    assert found == {0: left[0], 1: alone.target.ids.tolist(), 2: left[2]}
    assert found[1] != left[1]
    assert outputs._cache is not None
    assert outputs._cache.take([1]) == [0], "every room is given back"


def test_a_copy_that_is_given_up_is_forgotten(
    lively: TrimodalModel, conditions: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Redraws, "_likeness", lambda *_: 1.0)
    outputs = Outputs(lively.eval(), V)
    outputs.add({0: Wanted(conditions[0], Request(to=V), Decoding(steps=1, redraws=8), 3)})
    with torch.no_grad():
        for _ in range(3):
            assert outputs.step()[1] == {}
    outputs.drop([0])
    assert len(outputs) == 0
    assert outputs._redraws.copied({0: PICTURE}) == {}


@pytest.mark.parametrize("redraws", [0, 1])
@torch.no_grad()
def test_of_what_may_be_drawn_again_nothing_is_final(
    lively: TrimodalModel,
    conditions: list[Sample],
    monkeypatch: pytest.MonkeyPatch,
    redraws: int,
) -> None:
    """The first has a picture, the other none; a picture is drawn."""
    monkeypatch.setattr(Redraws, "_likeness", lambda *_: 1.0)
    blind = replace(conditions[0], media={T: conditions[0].media[T]})
    outputs, decoding = Outputs(lively.eval(), V), Decoding(steps=2, redraws=redraws)
    both = enumerate((conditions[0], blind))
    outputs.add({i: Wanted(sample, Request(to=V), decoding, 3) for i, sample in both})
    finals: dict[int, list[bool]] = {0: [], 1: []}
    while len(outputs):
        grown, _ = outputs.step()
        for number, one in grown.items():
            finals[number].append(one.final == len(one.ids))
    assert finals[0] == ([False, False] if redraws else []) + [False, True]
    assert finals[1] == [False, True]
