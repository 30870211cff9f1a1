from pathlib import Path
from typing import Literal

import pytest
import torch

from trimodal.batch import Modality
from trimodal.config import SpeechAugmentConfig, VisionAugmentConfig
from trimodal.data import read_manifest
from trimodal.data.dataset import RowDataset
from trimodal.errors import DataError
from trimodal.processors import TrimodalProcessor
from trimodal.testing import (
    assert_close,
    tiny_model_config,
    tiny_tokenizer,
    write_tiny_manifest,
)

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
    (manifest.parent / "train-1.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"train\.jsonl:2: speech is truncated"):
        dataset(manifest).sample(1, 0)
