import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from trimodal.data import digits, read_manifest
from trimodal.data.corpus import SPLITS, Item, build
from trimodal.data.digits import NAMES, Digits
from trimodal.data.espeak import SPEAKERS, Utterance
from trimodal.errors import ConfigError, DataError


def _said(item: Item) -> Utterance:
    assert item.utterance is not None
    return item.utterance


@pytest.fixture(scope="module")
def items() -> dict[str, list[Item]]:
    """Every row of the default corpus, without its media."""
    recipe = Digits()
    return {split: [recipe.item(split, i) for i in range(recipe.size(split))] for split in SPLITS}


def test_splits_are_contiguous_blocks() -> None:
    blocks = [Digits().block(split) for split in SPLITS]
    assert [(block.start, block.stop) for block in blocks] == [
        (0, 1297),
        (1297, 1497),
        (1497, 1797),
    ]


def test_every_train_scan_has_three_rows_and_every_other_one(items: dict[str, list[Item]]) -> None:
    counts = {split: Counter(item.image for item in items[split]) for split in SPLITS}
    assert {split: len(count) for split, count in counts.items()} == {
        "train": 1297,
        "val": 200,
        "test": 300,
    }
    assert [set(counts[split].values()) for split in SPLITS] == [{3}, {1}, {1}]
    for split in SPLITS:
        pictured = [item.image for item in items[split] if item.pixels is not None]
        assert sorted(pictured) == sorted(counts[split])


def test_the_takes_of_a_scan_have_different_speakers(items: dict[str, list[Item]]) -> None:
    speakers: dict[str, set[str]] = {}
    for item in items["train"]:
        speakers.setdefault(item.image, set()).add(_said(item).voice.name)
    assert {len(names) for names in speakers.values()} == {3}


def test_speakers_are_disjoint_and_all_of_them_speak(items: dict[str, list[Item]]) -> None:
    speakers = {split: {_said(i).voice.name for i in items[split]} for split in SPLITS}
    assert {split: len(names) for split, names in speakers.items()} == SPEAKERS
    assert len(set().union(*speakers.values())) == sum(SPEAKERS.values())


def test_pictures_are_the_scans_at_full_range(items: dict[str, list[Item]]) -> None:
    greys, targets = load_digits(return_X_y=True)
    for split, start in (("val", 1297), ("test", 1497)):
        for i, item in enumerate(items[split]):
            assert item.pixels is not None
            assert item.pixels.dtype == np.uint8
            np.testing.assert_allclose(
                item.pixels.reshape(64), greys[start + i] * 255 / 16, atol=0.5
            )
            assert item.fields["label"] == item.fields["group"] == str(targets[start + i])
    assert max(item.pixels.max() for item in items["val"] if item.pixels is not None) == 255


def test_texts_speech_and_label_tell_one_digit(items: dict[str, list[Item]]) -> None:
    for split in SPLITS:
        for item in items[split]:
            digit = int(item.fields["label"])
            assert item.fields["text"].split()[-1] == NAMES["en"][digit]
            assert item.fields["text_zh"][-1] == NAMES["zh"][digit]
            assert _said(item).text == NAMES[_said(item).lang][digit]


def test_train_has_phrases_and_the_others_bare_names(items: dict[str, list[Item]]) -> None:
    prompts = Digits().prompts()
    used = {(i.fields["label"], i.fields["text"]) for i in items["train"]}
    assert used == {(label, text) for label, texts in prompts.items() for text in texts["en"]}
    used = {(i.fields["label"], i.fields["text_zh"]) for i in items["train"]}
    assert used == {(label, text) for label, texts in prompts.items() for text in texts["zh"]}
    for split in ("val", "test"):
        assert {i.fields["text"] for i in items[split]} == set(NAMES["en"])
        assert {i.fields["text_zh"] for i in items[split]} == set(NAMES["zh"])
    assert prompts["7"] == {
        "en": ["seven", "the digit seven", "a handwritten seven"],
        "zh": ["七", "数字七", "手写的七"],
    }


def test_the_languages_of_speech_alternate(items: dict[str, list[Item]]) -> None:
    for split in SPLITS:
        langs = Counter(_said(item).lang for item in items[split])
        assert abs(langs["en"] - langs["zh"]) <= 1


def test_ids_are_unique(items: dict[str, list[Item]]) -> None:
    ids = [item.fields["id"] for split in SPLITS for item in items[split]]
    assert len(set(ids)) == len(ids) == 3 * 1297 + 500


def test_a_row_does_not_depend_on_the_limit(items: dict[str, list[Item]]) -> None:
    few = Digits(limit=5)
    assert [few.size(split) for split in SPLITS] == [15, 5, 5]
    for split in SPLITS:
        for index in range(few.size(split)):
            item, same = few.item(split, index), items[split][index]
            assert (item.fields, _said(item)) == (same.fields, _said(same))


def test_the_seed_changes_speakers_and_phrases(items: dict[str, list[Item]]) -> None:
    other = Digits(seed=1)
    texts = [other.item("train", i).fields["text"] for i in range(60)]
    assert texts != [item.fields["text"] for item in items["train"][:60]]
    assert _said(other.item("test", 0)).voice != _said(items["test"][0]).voice


def test_a_built_corpus_can_be_read(tmp_path: Path) -> None:
    build(Digits(limit=4, speakers=5), tmp_path)
    rows = read_manifest(tmp_path / "train.jsonl")
    assert len(rows) == 12
    assert {row.data_names for row in rows} == {("image", "text", "speech")}
    assert rows[0].image == rows[2].image
    assert isinstance(rows[0].image, Path)
    with Image.open(rows[0].image) as image:
        assert (image.size, image.mode) == ((8, 8), "L")
    assert json.loads((tmp_path / "build.json").read_bytes())["limit"] == 4
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in readme
    assert "`train.jsonl` 12 rows, `val.jsonl` 4, `test.jsonl` 4" in readme


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^2 speakers are too few for 3 takes of each scan$"):
        Digits(speakers=2)
    with pytest.raises(ConfigError, match=r"^a limit of 0 leaves no scans$"):
        Digits(limit=0)


def test_a_missing_scikit_learn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'trimodal\[demo\]'"):
        digits.scans.__wrapped__()
