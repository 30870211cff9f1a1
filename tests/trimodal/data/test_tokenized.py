import json
from pathlib import Path

import pytest
import torch

from trimodal.batch import Modality
from trimodal.data import read_manifest
from trimodal.data.tokenized import stored_target, tokenize_manifest
from trimodal.errors import ConfigError, DataError, StorageError
from trimodal.processors import TrimodalProcessor
from trimodal.testing import (
    tiny_model_config,
    tiny_tokenizer,
    tiny_tokenizers,
    write_tiny_manifest,
)

V, T, S = Modality


@pytest.fixture
def processor() -> TrimodalProcessor:
    return TrimodalProcessor(tiny_model_config(), tiny_tokenizer(), tiny_tokenizers())


def test_the_stored_codes_are_those_that_are_computed(
    tmp_path: Path, processor: TrimodalProcessor
) -> None:
    source = write_tiny_manifest(tmp_path / "a", rows=8)
    out = tmp_path / "b" / "coded.jsonl"
    assert tokenize_manifest(source, out, lambda: processor) == 8
    assert processor.codes is not None
    for before, row in zip(read_manifest(source), read_manifest(out), strict=True):
        assert (row.id, row.texts, row.data_names) == (before.id, before.texts, before.data_names)
        for modality, path in ((V, row.image), (S, row.speech)):
            found = stored_target(row, modality, processor.codes)
            assert (found is None) == (path is None)
            if found is not None:
                expected = processor.codes.target(processor.medium(modality, path), ())
                assert found.grid == expected.grid
                assert torch.equal(found.ids, expected.ids)


def change(path: Path, key: str, value: object) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    tree = json.loads(lines[0])
    tree["image_codes"][key] = value
    path.write_text("\n".join([json.dumps(tree), *lines[1:]]) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [
        ("tokenizer", "0123", "image_codes are of another vision tokenizer"),
        ("ids", [0, 1], "image_codes are not"),
        ("ids", "seven", "image_codes needs tokenizer, grid and ids"),
        ("ids", [99] * 6, "image_codes are not"),
        ("grid", None, "image_codes needs tokenizer, grid and ids"),
    ],
)
def test_codes_that_do_not_fit_are_refused(
    tmp_path: Path, processor: TrimodalProcessor, key: str, value: object, cause: str
) -> None:
    out = tmp_path / "coded.jsonl"
    tokenize_manifest(write_tiny_manifest(tmp_path, rows=2), out, lambda: processor)
    change(out, key, value)
    assert processor.codes is not None
    with pytest.raises(DataError, match=rf"coded\.jsonl:1: {cause}"):
        stored_target(read_manifest(out)[0], V, processor.codes)


def test_a_medium_that_cannot_be_read_is_named_and_nothing_is_left(
    tmp_path: Path, processor: TrimodalProcessor
) -> None:
    source = write_tiny_manifest(tmp_path, rows=2)
    (tmp_path / "train-1.png").write_bytes(b"no picture")
    out = tmp_path / "coded.jsonl"
    with pytest.raises(DataError, match=r"train\.jsonl:2: image is not a PNG"):
        tokenize_manifest(source, out, lambda: processor)
    assert not out.exists()


def test_without_tokenizers_nothing_is_written(tmp_path: Path) -> None:
    bare = TrimodalProcessor(tiny_model_config(), tiny_tokenizer())
    with pytest.raises(ConfigError, match=r"data\.tokenizers"):
        tokenize_manifest(write_tiny_manifest(tmp_path, rows=2), tmp_path / "x.jsonl", lambda: bare)


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, processor: TrimodalProcessor
) -> None:
    source = write_tiny_manifest(tmp_path, rows=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        tokenize_manifest(source, tmp_path / "file" / "x.jsonl", lambda: processor)
