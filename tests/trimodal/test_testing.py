"""The fixtures that other tests stand on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from trimodal.batch import Modality
from trimodal.data.manifest import read_manifest
from trimodal.processors import TrimodalProcessor
from trimodal.testing import (
    COLOURS,
    TOLERANCES,
    assert_close,
    tiny_model_config,
    tiny_tokenizer,
    write_tiny_manifest,
)


def test_assert_close_takes_every_kind_of_number() -> None:
    assert_close(torch.tensor([1.0, float("nan")]), np.array([1.0 + 1e-7, np.nan]), "fp32")
    assert_close([[1, 2]], torch.tensor([[1, 2]]), "exact")


@pytest.mark.parametrize(
    ("actual", "expected"),
    [([1.0], [1.1]), ([float("nan")], [1.0]), ([1.0, 1.0], [1.0])],
    ids=["value", "nan", "shape"],
)
def test_assert_close_names_what_differs(actual: list[float], expected: list[float]) -> None:
    with pytest.raises(AssertionError, match="fp32: "):
        assert_close(actual, expected, "fp32")


def test_only_the_half_precisions_are_loose() -> None:
    loose = [kind for kind, tolerance in TOLERANCES.items() if max(tolerance) > 1e-4]
    assert loose == ["bf16"]


def test_tiny_data_is_readable_and_lacks_every_modality_somewhere(tmp_path: Path) -> None:
    rows = read_manifest(write_tiny_manifest(tmp_path, rows=24))
    assert len(rows) == 24
    processor = TrimodalProcessor(tiny_model_config(), tiny_tokenizer())
    sets = {row.data_names for row in rows}
    assert {len(names) for names in sets} == {1, 2, 3}
    assert len(sets) == 7
    for row in rows:
        sources = {
            "image": row.image,
            "speech": row.speech,
            "text": next(iter(row.texts.values()), None),
        }
        for name in row.data_names:
            assert processor.medium(Modality.of(name), sources[name]).num_tokens > 0


def test_tiny_data_is_a_function_of_its_name(tmp_path: Path) -> None:
    write_tiny_manifest(tmp_path / "a", rows=2)
    write_tiny_manifest(tmp_path / "b", rows=2)
    write_tiny_manifest(tmp_path / "b", rows=2, name="test")
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert files == {name: (tmp_path / "b" / name).read_bytes() for name in files}
    assert (tmp_path / "b" / "test-0.png").read_bytes() != files["train-0.png"]


def test_tiny_speech_tells_the_colour(tmp_path: Path) -> None:
    processor = TrimodalProcessor(tiny_model_config(), tiny_tokenizer())
    loudest: dict[str | None, set[int]] = {}
    for row in read_manifest(write_tiny_manifest(tmp_path, rows=12, complete=True)):
        frames = processor.medium(Modality.SPEECH, row.speech).features
        loudest.setdefault(row.label, set()).add(int(frames.mean(0).argmax()))
    bands = [band for name in COLOURS for band in sorted(loudest[name])]
    assert bands == sorted(bands)
    assert len({min(loudest[name]) for name in COLOURS}) == len(COLOURS)
