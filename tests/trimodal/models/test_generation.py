from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.batch import Modality, Sample
from trimodal.config import SCHEDULES
from trimodal.errors import ConfigError, DataError, NumericError, StorageError
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.models.decoding import Decoding, Texts
from trimodal.models.generation import (
    Generation,
    Outputs,
    Request,
    Wanted,
    check_room,
    default_decoding,
    generate,
    modality_of,
)
from trimodal.models.prefix import Prefix
from trimodal.processors import TrimodalProcessor
from trimodal.schema import to_dict
from trimodal.testing import (
    assert_close,
    tiny_model_config,
    tiny_tokenizer,
    tiny_tokenizers,
)
from trimodal.tokenizers import Tokenizers
from trimodal.vocabulary import Special

V, T, S = Modality
PICTURE = np.full((8, 12, 3), 90, dtype=np.uint8)
SPEECH = (np.sin(np.arange(4000) / 9).astype(np.float32), 16_000)
SHORT = Decoding(max_tokens=5)


def ids_of(made: list[Generation]) -> list[list[int]]:
    return [one.target.ids.tolist() for one in made]


@pytest.mark.parametrize("guidance", [1.0, 1.7])
@pytest.mark.parametrize("to", list(Modality))
def test_an_output_does_not_depend_on_what_else_is_asked(
    lively: TrimodalModel, conditions: list[Sample], to: Modality, guidance: float
) -> None:
    """Alone, in any order and under any budget: the same ids, drawn at temperature 1."""
    request, decoding = Request(to=to, lang="en"), Decoding(max_tokens=5, guidance=guidance)
    samples, seeds = [*conditions, replace(conditions[0], media={})], list(range(50, 60))
    together = ids_of(generate(lively, samples, request, decoding, seeds))
    backward = generate(lively, samples[::-1], request, decoding, seeds[::-1])
    assert ids_of(backward)[::-1] == together
    for budget in (1, 150):
        cut = generate(lively, samples, request, decoding, seeds, token_budget=budget)
        assert ids_of(cut) == together
    for i in (0, 3, 8, 9):
        alone = generate(lively, samples[i : i + 1], request, decoding, seeds[i : i + 1])
        assert ids_of(alone) == together[i : i + 1]
    assert len({tuple(ids) for ids in together}) == len(samples)


def test_begun_texts_do_not_depend_on_each_other(
    lively: TrimodalModel, conditions: list[Sample]
) -> None:
    assert lively.processor is not None
    text = lively.processor.text
    begun = [None, text.medium("a red"), text.medium("红"), text.medium("the square is white")]
    request, seeds = Request(to=T), [3, 1, 4, 1]
    for decoding in (SHORT, replace(SHORT, temperature=0.0), replace(SHORT, guidance=2.0)):
        together = ids_of(generate(lively, conditions[:4], request, decoding, seeds, begun))
        for i, start in enumerate(begun):
            here = slice(i, i + 1)
            alone = generate(lively, conditions[here], request, decoding, seeds[here], begun[here])
            assert ids_of(alone) == together[here]
            if start is not None:
                beginning = start.features.tolist()
                assert together[i][: len(beginning)] == beginning


def test_guidance_and_the_condition_matter(lively: TrimodalModel, conditions: list[Sample]) -> None:
    """The same seed gives something else where the logits are others."""
    for to in Modality:
        found = set()
        for sample in (conditions[0], conditions[3], replace(conditions[0], media={})):
            for guidance in (1.0, 3.0):
                decoding = Decoding(max_tokens=5, guidance=guidance)
                made = generate(lively, [sample], Request(to=to, size=(8, 8)), decoding, [0])
                found.add(tuple(made[0].target.ids.tolist()))
        assert len(found) >= 4


def test_a_seed_decides_the_draws(lively: TrimodalModel, conditions: list[Sample]) -> None:
    for to in Modality:
        request = Request(to=to)
        first, second, other = (
            ids_of(generate(lively, conditions[:2], request, SHORT, seeds))
            for seeds in ([1, 2], [1, 2], [1, 3])
        )
        assert first == second
        assert first[0] == other[0]
        assert first[1] != other[1]


@pytest.mark.parametrize("to", Modality)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@torch.no_grad()
def test_outputs_that_join_at_any_step_are_what_they_are_alone(
    lively: TrimodalModel, conditions: list[Sample], to: Modality, guidance: float
) -> None:
    """Some leave, some end, and others come and take their rooms, each at a step of its own.

    Each is asked for and decoded in a way of its own, too.
    """
    lively.table[int(Special.END_TEXT)] *= 4
    guided = guidance != 1
    wanted = [
        Wanted(
            sample,
            Request(
                to=to,
                lang=("en", "zh", None)[i % 3],
                size=((8, 8), (4, 8))[i % 2] if to is V else None,
            ),
            replace(
                SHORT,
                guidance=guidance + guided * i / 9,
                temperature=(1.0, 0.0, 0.7)[i % 3],
                top_p=(0.9, 1.0)[i % 2],
                steps=3 + i % 4,
                schedule=SCHEDULES[i % 2],
                max_tokens=9 - i % 3,
            ),
            seed=i,
        )
        for i, sample in enumerate(conditions)
    ]
    expected = [
        ids_of(generate(lively, [one.sample], one.request, one.decoding, [one.seed]))[0]
        for one in wanted
    ]
    outputs = Outputs(lively, to)
    joins = {0: [0, 1], 1: [2], 2: [3, 4, 5], 4: [6], 5: [7, 8]}
    seen: dict[int, list[int]] = {}
    found: dict[int, list[int]] = {}
    for step in range(30):
        numbers = joins.get(step, [])
        if numbers:
            outputs.add({i: wanted[i] for i in numbers})
        if step == 3:
            outputs.drop([1, 4])
        if len(outputs):
            grown, done = outputs.step()
            seen |= {i: list(one.ids) for i, one in grown.items()}
            found |= {i: one.target.ids.tolist() for i, one in done.items()}
    gone = {1, 4} - found.keys()
    assert found == {i: ids for i, ids in enumerate(expected) if i not in gone}
    assert 1 in gone or len(expected[1]) <= 3
    assert all(seen.get(i, []) == ids for i, ids in found.items())
    assert not outputs._wanted
    assert outputs._cache is not None
    assert outputs._cache.take([1]) == [0], "every room is given back"


def test_what_cannot_be_added_takes_no_room(
    lively: TrimodalModel, conditions: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = Outputs(lively, T)
    wanted = [Wanted(sample, Request(to=T), SHORT, i) for i, sample in enumerate(conditions)]
    outputs.add({0: wanted[0]})
    cache = outputs._cache
    assert cache is not None
    rooms = dict(cache._rooms)
    for broken in (Prefix, Texts):
        name = {Prefix: "_trunk", Texts: "_entered"}[broken]

        def fail(*_: Any) -> None:
            raise RuntimeError("broken")

        with monkeypatch.context() as patch:
            patch.setattr(broken, name, fail)
            with pytest.raises(RuntimeError, match="broken"):
                outputs.add({1: wanted[1], 2: wanted[2]})
        assert cache._rooms == rooms
        assert len(outputs) == 1


def test_outputs_are_what_they_are_called(model: TrimodalModel) -> None:
    (picture,) = model.generate(text=["a red square"], to="image")
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (12, 16, 3)
    assert picture.dtype == np.uint8
    (picture,) = model.generate(text=["a red square"], to="image", size=(4, 20))
    assert picture.shape == (4, 20, 3)  # pyright: ignore[reportAttributeAccessIssue]
    spoken = model.generate(text=["a red square", "红"], to="speech", lang="zh")
    longest = model.architecture.spoken_seconds * model.sample_rate
    assert model.sample_rate == 16_000
    for samples in spoken:
        assert isinstance(samples, np.ndarray)
        assert samples.dtype == np.float32
        assert samples.ndim == 1
        assert 0 < len(samples) <= longest + 400
        assert np.abs(samples).max() <= 1
    texts = model.generate(image=[PICTURE], speech=[SPEECH], to="text", decoding=SHORT)
    assert [type(text) for text in texts] == [str]


def test_a_row_draws_with_its_own_seed(model: TrimodalModel) -> None:
    texts = ["a red square", "红色", "the square is white"]
    decoding = Decoding(max_tokens=8)
    together = model.generate(text=texts, to="text", seed=5, decoding=decoding)
    for i, text in enumerate(texts):
        alone = model.generate(text=[text], to="text", seed=5 + i, decoding=decoding)
        assert alone == together[i : i + 1]
    assert together == model.generate(text=texts, to="text", seed=5, decoding=decoding)
    assert together != model.generate(text=texts, to="text", seed=9, decoding=decoding)


def test_a_completion_may_observe_nothing(model: TrimodalModel) -> None:
    begun = ["a red", "the square"]
    for image in (None, [None, PICTURE]):
        texts = model.generate(image=image, complete=begun, to="text", decoding=SHORT)
        for text, start in zip(texts, begun, strict=True):
            assert isinstance(text, str)
            assert text.startswith(start)
    mixed = model.generate(image=[PICTURE, None], complete=[None, "a red"], to="text")
    assert len(mixed) == 2


def test_the_prompt_says_what_is_asked(lively: TrimodalModel, conditions: list[Sample]) -> None:
    requests = [Request(to=T), Request(to=T, lang="en"), Request(to=T, lang="zh")]
    requests.append(Request(to=T, answer=True))
    made = [ids_of(generate(lively, conditions[:1], r, SHORT, [0]))[0] for r in requests]
    assert len({tuple(ids) for ids in made}) == len(requests)
    assert len({request.prompt for request in requests}) == len(requests)
    assert Request(to=V, lang="en").prompt == Request(to=V).prompt


def test_generating_leaves_the_model_as_it_was(model: TrimodalModel) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.train()
    model.generate(text=["red"], to="text", decoding=SHORT)
    assert model.training
    with pytest.raises(DataError):
        model.generate(text=["red"], to="image", size=(5, 5))
    assert model.training
    for name, weight in model.state_dict().items():
        assert_close(weight, before[name], "exact")


def test_nothing_asked_is_nothing_generated(model: TrimodalModel) -> None:
    for to in ("image", "text", "speech"):
        assert model.generate(text=[], to=to) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"to": "audio"}, ConfigError, "'audio' is not one of image, text, speech"),
        ({"to": "text", "lang": "fr"}, ConfigError, "lang must be en or zh, got 'fr'"),
        ({"to": "image", "answer": True}, ConfigError, "an answer is a text; it cannot be"),
        ({"to": "image", "complete": ["a"]}, ConfigError, "only a text can be completed"),
        ({"to": "image", "size": (5, 8)}, DataError, "a picture of 5 x 8 pixels cannot be drawn"),
        ({"to": "image", "size": (0, 8)}, DataError, "a picture of 0 x 8 pixels cannot be drawn"),
        ({"to": "image", "size": (-4, -8)}, DataError, "a picture of -4 x -8 pixels cannot be"),
        (
            {"to": "image", "size": (36, 32)},
            DataError,
            "a picture of 36 x 32 pixels cannot be drawn: both sides must be multiples of 4, and "
            "1024 pixels are the most",
        ),
        ({"to": "text", "text": [" "]}, DataError, "text[0]: text is empty"),
        ({"to": "text", "text": [None]}, DataError, "row 0 has neither image nor text nor speech"),
        ({"to": "text", "complete": ["a", "b"]}, DataError, "the lists have different lengths"),
        ({"to": "text", "complete": [" "]}, DataError, "complete[0]: text is empty"),
        ({"to": "text", "complete": "a"}, DataError, "complete must be a list, got a single item"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be(
    model: TrimodalModel, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        model.generate(**{"text": ["red"], **options})
    assert str(caught.value).startswith(message)


def test_a_model_generates_what_it_was_trained_to(model: TrimodalModel) -> None:
    model.config.generates = ["text"]
    assert model.generate(text=["red"], to="text", decoding=SHORT)
    with pytest.raises(ConfigError, match="not trained to generate image; it generates text"):
        model.generate(text=["red"], to="image")
    model.config.generates = []
    with pytest.raises(ConfigError, match="it generates nothing"):
        model.generate(text=["red"], to="text")


def test_a_model_answers_if_it_was_trained_to_or_nobody_wrote_it_down(model: TrimodalModel) -> None:
    asked: dict[str, Any] = {"text": ["red?"], "to": "text", "answer": True, "decoding": SHORT}
    expected = model.generate(**asked)
    model.config.answers = True
    assert model.generate(**asked) == expected
    model.config.answers = False
    with pytest.raises(ConfigError, match="not trained to answer questions"):
        model.generate(**asked)
    assert model.generate(**{**asked, "answer": False})


def test_a_missing_tokenizer_is_named(model: TrimodalModel) -> None:
    config, proto = tiny_model_config(), tiny_tokenizer()
    model.processor = TrimodalProcessor(config, proto)
    assert model.generate(text=["red"], to="text", decoding=SHORT)
    with pytest.raises(ConfigError, match="this model has no learnt tokenizers"):
        model.generate(text=["red"], to="image")
    whole = tiny_tokenizers()
    model.processor = TrimodalProcessor(config, proto, Tokenizers(speech=whole.speech))
    with pytest.raises(ConfigError, match="has no vision tokenizer, so it draws no pictures"):
        model.generate(text=["red"], to="image")
    model.processor = TrimodalProcessor(config, proto, Tokenizers(vision=whole.vision))
    with pytest.raises(ConfigError, match="has no speech tokenizer, so it does not speak"):
        model.generate(text=["red"], to="speech")
    bare = TrimodalModel(TrimodalConfig(architecture=to_dict(config)))
    with pytest.raises(StorageError, match=r"trimodal\.load"):
        bare.generate(text=["red"], to="text")


def test_defaults() -> None:
    assert [modality_of(name) for name in ("image", "text", "speech")] == list(Modality)
    assert default_decoding(T).temperature == 0.0
    assert default_decoding(T).guidance == 1.0
    assert default_decoding(V).guidance > 1.0


@pytest.mark.parametrize("most", [16, 200])
def test_a_text_has_a_longest(model: TrimodalModel, most: int) -> None:
    """What the model reads, or the default if that is more; no room is taken for a longer one."""
    model.architecture = replace(model.architecture, max_text_tokens=most)
    longest = max(64, most)
    decoding = Decoding(max_tokens=longest)
    assert check_room(model, Request(to=T), decoding) == longest
    for more in (longest + 1, 10**9):
        with pytest.raises(ConfigError) as caught:
            model.generate(text=["red"], to="text", decoding=replace(decoding, max_tokens=more))
        message = f"max_tokens: a text of this model has at most {longest} pieces, got {more}"
        assert str(caught.value) == message
    assert model.generate(text=["red"], to="image", decoding=replace(decoding, max_tokens=10**9))


def test_a_length_that_is_not_finite_is_refused(
    lively: TrimodalModel, conditions: list[Sample]
) -> None:
    outputs = Outputs(lively, S)
    with torch.no_grad():
        lively.prediction_head.length.bias[0] = np.nan
    with pytest.raises(NumericError, match="computed a length that is not finite"):
        outputs.add({0: Wanted(conditions[0], Request(to=S), Decoding(), 0)})
    assert len(outputs) == 0
    assert outputs._cache is not None
    assert outputs._cache.take([1]) == [0], "every room is given back"


def test_speech_has_a_longest(lively: TrimodalModel, conditions: list[Sample]) -> None:
    torch.nn.init.constant_(lively.prediction_head.length.bias[:1], 100.0)
    made = generate(lively, conditions, Request(to=S), Decoding(steps=1), list(range(9)))
    # 0.6 seconds are 60 frames of 4 a code
    assert {len(one.target.ids) for one in made} == {15}
    torch.nn.init.constant_(lively.prediction_head.length.bias[:1], -100.0)
    made = generate(lively, conditions, Request(to=S), Decoding(steps=1), list(range(9)))
    assert {len(one.target.ids) for one in made} == {1}
