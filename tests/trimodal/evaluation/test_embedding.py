import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimodal.batch import Modality
from trimodal.data import read_manifest
from trimodal.errors import DataError, NumericError, StorageError
from trimodal.evaluation import embed_rows, load_model
from trimodal.evaluation.embedding import NAMES, read_sample, sample_chunks
from trimodal.testing import assert_close, write_tiny_manifest


def test_absent_media_are_nan_and_present_ones_unit(oracle: Any, corpus: Path) -> None:
    rows = read_manifest(corpus)
    vectors = embed_rows(oracle, rows)
    assert list(vectors) == list(NAMES)
    for name in ("image", "text", "speech"):
        present = [name in row.data_names for row in rows]
        assert (~np.isnan(vectors[name]).any(axis=1)).tolist() == present
        assert np.isnan(vectors[name][~np.array(present)]).all()
    assert_close(np.linalg.norm(vectors["fused"], axis=1), np.ones(len(rows)), "unit-norm")
    alone = [i for i, row in enumerate(rows) if len(row.data_names) == 1]
    for i in alone:
        np.testing.assert_array_equal(vectors["fused"][i], vectors[rows[i].data_names[0]][i])


def test_a_real_model_gives_the_same_in_chunks_of_any_size(
    model_folder: Path, corpus: Path
) -> None:
    rows = read_manifest(corpus)
    model = load_model(model_folder)
    whole = embed_rows(model, rows, variants=True)
    pieces = embed_rows(model, rows, variants=True, token_budget=40)
    for name, vectors in whole.items():
        assert_close(pieces[name], vectors, "packed-vs-alone-fp32")


def test_chunks_hold_a_few_budgets_and_every_row_once(oracle: Any, corpus: Path) -> None:
    rows = read_manifest(corpus)
    chunks = list(sample_chunks(oracle.processor, rows, token_budget=30))
    assert [s.id for chunk in chunks for s in chunk] == [row.id for row in rows]
    assert len(chunks) > 3
    for chunk in chunks[:-1]:
        assert 120 <= sum(s.num_tokens for s in chunk) < 120 + chunk[-1].num_tokens


def test_variants_are_pairs_and_languages(oracle: Any, tmp_path: Path) -> None:
    manifest = write_tiny_manifest(tmp_path, rows=4, complete=True)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[0] |= {"text": "a red square", "lang": "en", "text_zh": "蓝色的方块"}
    manifest.write_text("\n".join(json.dumps(line) for line in lines))
    vectors = embed_rows(oracle, read_manifest(manifest), variants=True)
    pairs = {"image+text", "image+speech", "speech+text"}
    assert set(vectors) == {*NAMES, *pairs, "text[en]", "text[zh]"}
    assert vectors["text[en]"][0].argmax() == 0
    assert vectors["text[zh]"][0].argmax() == 2
    assert np.isnan(vectors["text[en]"][1]).all()
    np.testing.assert_array_equal(vectors["text"][0], vectors["text[en]"][0])
    for pair in pairs:
        assert_close(np.linalg.norm(vectors[pair], axis=1), np.ones(4), "unit-norm")


def test_pairs_without_a_third_modality_are_left_out(oracle: Any, corpus: Path) -> None:
    rows = [row for row in read_manifest(corpus) if "speech" not in row.data_names]
    assert set(embed_rows(oracle, rows, variants=True)) == {*NAMES, "text[en]", "text[zh]"}


def test_a_bad_medium_is_named_by_file_and_line(oracle: Any, tmp_path: Path) -> None:
    manifest = write_tiny_manifest(tmp_path, rows=3)
    (tmp_path / "train-1.png").write_bytes(b"not a picture")
    with pytest.raises(DataError) as error:
        embed_rows(oracle, read_manifest(manifest))
    assert str(error.value) == f"{manifest}:2: image is not a PNG, JPEG or WebP picture"


def test_numbers_that_are_not_finite_are_not_taken_for_absent(oracle: Any, corpus: Path) -> None:
    rows = read_manifest(corpus)
    embed = oracle.embed_samples

    def broken(samples: Any, token_budget: int = 0) -> dict[str, np.ndarray]:
        vectors = embed(samples)
        vectors["speech"][2] = np.nan
        return vectors

    oracle.embed_samples = broken
    with pytest.raises(NumericError, match=r":3: the model's speech vector is not finite"):
        embed_rows(oracle, rows)


def test_a_model_without_processor_is_refused(oracle: Any, corpus: Path) -> None:
    oracle.processor = None
    with pytest.raises(StorageError, match=r"load it with trimodal.load"):
        embed_rows(oracle, read_manifest(corpus))


def test_a_sample_takes_the_text_of_the_rows_own_language(oracle: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": "a", "text": "红色", "lang": "zh", "text_en": "blue"}\n')
    sample = read_sample(oracle.processor, read_manifest(path)[0])
    ids = sample.media[Modality.TEXT].features.tolist()
    assert oracle.processor.text.decode(ids) == "红色"


@pytest.mark.parametrize("shown", [False, True])
def test_progress_is_plain_lines_off_a_terminal(
    oracle: Any, corpus: Path, capsys: pytest.CaptureFixture[str], shown: bool
) -> None:
    embed_rows(oracle, read_manifest(corpus), progress=shown)
    assert capsys.readouterr().err == ("embedded 32 of 32 rows\n" if shown else "")
