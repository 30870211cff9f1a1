import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimodal.config import SpeechInputConfig
from trimodal.data import Row, read_manifest
from trimodal.errors import DataError
from trimodal.evaluation.copies import Copies
from trimodal.processors import SpeechProcessor
from trimodal.streams import generator
from trimodal.testing import write_tiny_manifest

SPEECH = SpeechProcessor(SpeechInputConfig(num_mels=16))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Sixteen rows of four labels, each with its own picture and utterance."""
    folder = tmp_path_factory.mktemp("copies")
    return read_manifest(write_tiny_manifest(folder, rows=16, name="test", complete=True))


def test_pictures_that_are_handed_back_are_counted(rows: list[Row]) -> None:
    copies = Copies(rows, SPEECH, seed=0)
    pictures = [copies.vision.decode(str(row.image)).permute(1, 2, 0).numpy() for row in rows]
    noise = [generator("noise", i).integers(0, 256, (8, 8, 3)).astype(np.uint8) for i in range(16)]
    assert copies.share("image", rows, pictures[:12] + noise[12:]) == 0.75
    assert copies.share("image", rows, pictures[1:] + pictures[:1]) < 0.5
    assert copies.share("image", [], []) == 0.0


def test_utterances_that_are_handed_back_are_counted(rows: list[Row]) -> None:
    speech = [SPEECH.decode(str(row.speech)).numpy() for row in rows]
    hiss = generator("hiss").normal(0, 0.1, 8000).astype(np.float32)
    heard = [(0.5 * s, 16_000) for s in speech[:8]] + [(hiss, 16_000), (hiss[:0], 8_000)] * 4
    assert Copies(rows, SPEECH, seed=0).share("speech", rows, heard) == 0.5


def test_the_base_rate_is_of_other_files_of_the_label(rows: list[Row]) -> None:
    """Were all rows of a label to show one picture under several names, each would be a copy."""
    first = {row.label: row for row in reversed(rows)}
    twins = []
    for row in rows:
        assert isinstance(row.image, Path)
        path = row.image.with_name(f"twin-{row.image.name}")
        source = first[row.label].image
        assert isinstance(source, Path)
        path.write_bytes(source.read_bytes())
        twins.append(replace(row, image=path))
    assert Copies(twins, SPEECH, seed=0).base_rate("image", twins) == 1.0
    shared = [replace(row, image=first[row.label].image) for row in rows]
    assert Copies(shared, SPEECH, seed=0).base_rate("image", shared) is None
    alone = [replace(row, label=None, group=row.id) for row in rows]
    assert Copies(alone, SPEECH, seed=0).base_rate("image", alone) is None


def test_the_base_rate_depends_on_the_seed_and_the_row_alone(rows: list[Row]) -> None:
    found = [Copies(rows, SPEECH, seed=3).base_rate("speech", part) for part in (rows, rows[::-1])]
    assert found[0] == found[1]
    assert found[0] is not None
    assert 0 <= found[0] <= 1


def test_a_row_without_the_medium_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"id": "a", "text": "x"}), encoding="utf-8")
    [row] = read_manifest(path)
    with pytest.raises(DataError, match=r"m\.jsonl:1: has no image to compare with$"):
        Copies([row], SPEECH, seed=0).share("image", [row], [np.zeros((8, 8, 3), np.uint8)])
