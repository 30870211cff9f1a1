from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from trimodal.config import VocabularyConfig
from trimodal.data import Row, read_manifest
from trimodal.data.shards import import_manifest
from trimodal.data.statistics import measure
from trimodal.errors import DataError
from trimodal.processors.text import TextProcessor
from trimodal.testing import tiny_tokenizer, write_tiny_manifest
from trimodal.vocabulary import Vocabulary


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Two pictures, of which one is in two rows, and an hour and a half of speech."""
    for name, size in (("a", (40, 30)), ("b", (10, 20))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    for name, seconds in (("x", 3600), ("y", 1800)):
        soundfile.write(tmp_path / f"{name}.flac", np.zeros(seconds * 1000), 1000)
    (tmp_path / "rows.jsonl").write_text(
        '{"id": "1", "image": "a.png", "text": "a cat", "text_zh": "猫", "label": "cat"}\n'
        '{"id": "2", "image": "a.png", "speech": "x.flac", "speaker": "s", "speech_lang": "en"}\n'
        '{"id": "3", "image": "b.png", "speech": "y.flac", "question_speech": "x.flac"}\n',
        encoding="utf-8",
    )
    return read_manifest(tmp_path / "rows.jsonl")


def test_everything_is_counted_once(rows: list[Row]) -> None:
    found = measure(rows)
    assert found.rows == 3
    assert found.modalities == {"image+text": 1, "image+speech": 2}
    assert found.seconds == {"en": [3600.0], "unnamed": [1800.0]}
    assert found.speakers == {"s": 3600.0}
    assert sorted(found.sizes) == [(20, 10), (30, 40)]
    assert found.characters == {"en": [5], "zh": [1]}
    assert found.labels == {"cat": 1}
    assert found.tree()["hours"] == {"en": 1.0, "unnamed": 0.5}
    assert found.tree()["pixels"]["height"]["p50"] == 25


def test_it_is_said_in_words(rows: list[Row]) -> None:
    told = measure(rows).summary()
    assert "speech, en: 1.00 hours in 1 files" in told
    assert "speakers: 1, 60.0 to 60.0 minutes each" in told
    assert "pictures: 2, 11.5 to 38.5 (median 25) wide" in told


def test_pieces_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "text.model").write_bytes(tiny_tokenizer())
    rows = read_manifest(write_tiny_manifest(tmp_path / "data", rows=8))
    found = measure(rows, tmp_path / "text.model")
    assert found.tokens.keys() == found.characters.keys()
    processor = TextProcessor(tiny_tokenizer(), Vocabulary(VocabularyConfig()), 64)
    expected = sum(processor.medium(t).num_tokens for row in rows for t in row.texts.values())
    assert sum(sum(each) for each in found.tokens.values()) == expected
    with pytest.raises(DataError, match=r"nothing\.model is no tokenizer"):
        measure(rows, tmp_path / "nothing.model")


def test_shards_have_the_same_statistics(tmp_path: Path) -> None:
    manifest = write_tiny_manifest(tmp_path / "data", rows=16)
    import_manifest(manifest, tmp_path / "shards")
    before, after = (measure(read_manifest(p)) for p in (manifest, tmp_path / "shards"))
    assert after.tree() == before.tree()


@pytest.mark.parametrize("name", ["a.png", "x.flac"])
def test_a_header_that_cannot_be_read_is_named(rows: list[Row], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(DataError, match=rf"rows\.jsonl:[12]: .*{name} has no header"):
        measure(rows)
