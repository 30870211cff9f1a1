import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from trimodal.batch import Modality
from trimodal.config import SpeechAugmentConfig, VisionAugmentConfig
from trimodal.data import read_manifest
from trimodal.data.dataset import RowDataset
from trimodal.errors import ConfigError, DataError
from trimodal.processors import TrimodalProcessor
from trimodal.storage import Source
from trimodal.testing import (
    assert_close,
    tiny_model_config,
    tiny_tokenizer,
    tiny_tokenizers,
    write_tiny_manifest,
)
from trimodal.vocabulary import Special, prompt

V, T, S = Modality
STRONG = (VisionAugmentConfig(rotate_degrees=30), SpeechAugmentConfig(stretch=0.3, noise=1.0))
NONE = (VisionAugmentConfig(), SpeechAugmentConfig())


def dataset(
    manifest: Path,
    augment: tuple[VisionAugmentConfig, SpeechAugmentConfig] = NONE,
    positives: Literal["sample", "group", "label"] = "group",
    cache: int = 0,
) -> RowDataset:
    processor = TrimodalProcessor(tiny_model_config(), tiny_tokenizer())
    return RowDataset(read_manifest(manifest), processor, *augment, positives, cache)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_tiny_manifest(tmp_path, rows=8)


def test_a_sample_holds_what_its_row_has(manifest: Path) -> None:
    made = dataset(manifest)
    for i, row in enumerate(made.rows):
        assert {m.data_name for m in made.sample(i, 0).media} == set(row.data_names)
        assert made.sample(i, 0).id == row.id


@pytest.mark.parametrize("cache", [0, 10**9])
def test_a_sample_depends_on_keys_and_row_alone(manifest: Path, cache: int) -> None:
    made, fresh = dataset(manifest, STRONG, cache=cache), dataset(manifest, STRONG)
    for step in (0, 1, 0):
        for i in (0, 3):
            a, b = made.sample(i, 5, step), fresh.sample(i, 5, step)
            for modality in a.media:
                assert torch.equal(a.media[modality].features, b.media[modality].features)
    first, second = (made.sample(0, 5, step).media[Modality.SPEECH].features for step in (0, 1))
    assert first.shape != second.shape or not torch.equal(first, second)


def test_without_augmentation_it_is_what_the_processor_makes(manifest: Path) -> None:
    made = dataset(manifest)
    row = made.rows[0]
    expected = made.processor(image=[row.image], speech=[row.speech])[0]
    sample = made.sample(0, 3)
    for modality, medium in expected.media.items():
        assert_close(sample.media[modality].features, medium.features, "packed-vs-alone-fp32")


def test_languages_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    path.write_text('{"id": "a", "text": "red", "text_zh": "红色"}\n')
    made = dataset(path)
    texts = [made.sample(0, step).media[Modality.TEXT] for step in range(20)]
    assert len({tuple(medium.features.tolist()) for medium in texts}) == 2


def test_rows_that_belong_together_share_a_number(manifest: Path) -> None:
    made = dataset(manifest)
    labels = [row.label for row in made.rows]
    for i, a in enumerate(labels):
        for j, b in enumerate(labels):
            assert (made.groups[i] == made.groups[j]) == (a == b)
    assert len(set(dataset(manifest, positives="sample").groups)) == 8


def test_a_bad_medium_is_named_by_its_line(manifest: Path) -> None:
    (manifest.parent / "train-1.wav").write_bytes(b"RIFF\xff\0\0\0WAVE")
    with pytest.raises(DataError, match=r"train\.jsonl:2: speech is truncated"):
        dataset(manifest).sample(1, 0)


@pytest.fixture
def rich(tmp_path: Path) -> RowDataset:
    """Rows 0 and 8 tell the same colour, as 1 and 12 do; row 0 has two texts and a question."""
    path = write_tiny_manifest(tmp_path, rows=16)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[0] |= {"text_zh": "红色", "question": "什么颜色?", "answer": "red", "speech_lang": "zh"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    processor = TrimodalProcessor(tiny_model_config(), tiny_tokenizer(), tiny_tokenizers())
    return RowDataset(read_manifest(path), processor, *STRONG)


def codes_of(dataset: RowDataset, path: Source, modality: Modality) -> list[int]:
    processor = dataset.processor
    assert processor.codes is not None
    return processor.codes.target(processor.medium(modality, path), ()).ids.tolist()


def test_a_sample_says_what_can_be_asked_of_it(rich: RowDataset) -> None:
    assert rich.sample(0, 0).asks
    assert not rich.sample(1, 0).asks
    assert rich.sample(0, 0).kin == {V, T, S}
    assert rich.sample(0, 0).kin == rich.kin.modalities(0)
    lonely = dataset(Path(rich.rows[0].where.rpartition(":")[0]), positives="sample")
    assert lonely.sample(1, 0).kin == frozenset()


def test_a_target_is_the_own_medium_without_augmentation(rich: RowDataset) -> None:
    row = rich.rows[0]
    assert row.image is not None
    assert row.speech is not None
    for modality, path in ((V, row.image), (S, row.speech)):
        made = rich.writing(0, modality, frozenset({T}), False, 0, 1)
        assert made.target.ids.tolist() == codes_of(rich, path, modality)
        assert made.members == {T}
        assert made.hidden_T is None
        assert made.target.prompt[0] == Special.BEGIN_VISION + modality


@pytest.mark.parametrize("modality", [Modality.VISION, Modality.SPEECH])
def test_a_target_of_kin_is_never_the_own_medium(rich: RowDataset, modality: Modality) -> None:
    own = rich.rows[0].image if modality is V else rich.rows[0].speech
    others = [
        row.image if modality is V else row.speech
        for row, group in zip(rich.rows, rich.groups, strict=True)
        if group == rich.groups[0]
    ]
    possible = [
        codes_of(rich, path, modality) for path in others if path is not None and path != own
    ]
    for step in range(12):
        target = rich.writing(0, modality, frozenset({modality}), True, 0, step).target
        assert target.ids.tolist() in possible


def test_a_text_of_kin_is_in_the_language_that_is_not_observed(rich: RowDataset) -> None:
    texts = {
        tuple(rich.processor.text.medium(text).features.tolist())
        for text in rich.rows[0].texts.values()
    }
    assert len(texts) == 2
    for step in range(12):
        seen = tuple(rich.sample(0, 7, step).media[T].features.tolist())
        target = rich.writing(0, T, frozenset({T}), True, 7, step).target
        assert {seen, tuple(target.ids.tolist())} == texts
    free = {
        tuple(rich.writing(0, T, frozenset(), False, 7, step).target.ids.tolist())
        for step in range(12)
    }
    assert free == texts


def test_a_second_target_of_a_sample_is_drawn_anew(rich: RowDataset) -> None:
    def told(again: tuple[int, ...]) -> list[tuple[int, ...]]:
        made = [rich.writing(0, T, frozenset(), False, 7, i, again=again) for i in range(20)]
        return [tuple(writing.target.ids.tolist()) for writing in made]

    assert told(()) == told(())
    assert told(()) != told((1,)) != told((2,))


def test_a_prompt_names_the_language_mostly(rich: RowDataset) -> None:
    spoken = [rich.writing(0, S, frozenset(), False, 0, i).target.prompt for i in range(200)]
    assert set(spoken) == {prompt(S), prompt(S, "zh")}
    assert 0.03 < spoken.count(prompt(S)) / 200 < 0.2
    drawn = {rich.writing(0, V, frozenset(), False, 0, i).target.prompt for i in range(20)}
    assert drawn == {prompt(V)}
    for step in range(40):
        target = rich.writing(0, T, frozenset(), False, 0, step).target
        text = rich.processor.text.decode(target.ids.tolist())
        assert target.prompt in (prompt(T), prompt(T, "zh" if "红" in text else "en"))


def test_an_answer_is_asked_by_its_question(rich: RowDataset) -> None:
    text = rich.processor.text
    made = [rich.answer(0, frozenset({V}), 0, step) for step in range(60)]
    for writing in made:
        (question,) = writing.extra
        assert text.decode(question.features.tolist()) == "什么颜色?"
        assert text.decode(writing.target.ids.tolist()) == "red"
        assert writing.members == {V}
    prompts = {writing.target.prompt for writing in made}
    assert prompts == {prompt(T, answer=True), prompt(T, "zh", answer=True)}


def test_a_question_may_be_spoken(rich: RowDataset) -> None:
    spoken = replace(rich.rows[0], question_speech=rich.rows[0].speech)
    made = RowDataset([spoken], rich.processor, *NONE)
    asked = [made.answer(0, frozenset({V}), 0, step).extra[0] for step in range(40)]
    assert {medium.modality for medium in asked} == {T, S}
    assert 8 < sum(medium.modality is S for medium in asked) < 32
    assert all(rich.answer(0, frozenset({V}), 0, i).extra[0].modality is T for i in range(20))


def test_a_writing_depends_on_keys_and_row_alone(rich: RowDataset) -> None:
    fresh = RowDataset(rich.rows, rich.processor, *NONE)
    for modality in Modality:
        a, b = (d.writing(0, modality, frozenset({T}), True, 4, 2).target for d in (rich, fresh))
        assert torch.equal(a.ids, b.ids)
        assert a.prompt == b.prompt


def test_targets_without_a_tokenizer_are_refused(manifest: Path) -> None:
    with pytest.raises(ConfigError, match="no tokenizer of vision is given"):
        dataset(manifest).writing(0, V, frozenset(), False, 0)


def test_what_is_wrong_with_a_target_is_named_by_its_line(rich: RowDataset) -> None:
    assert isinstance(rich.rows[0].speech, Path)
    rich.rows[0].speech.write_bytes(b"RIFF\xff\0\0\0WAVE")
    with pytest.raises(DataError, match=r"train\.jsonl:1: speech is truncated"):
        rich.writing(0, S, frozenset(), False, 0)
    long = replace(rich.rows[0], question="a " * 200, answer="a " * 200)
    made = RowDataset([long], rich.processor, *NONE)
    with pytest.raises(DataError, match=r"train\.jsonl:1: question: text has"):
        made.answer(0, frozenset(), 0)
