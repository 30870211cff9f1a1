import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trimodal.batch import Modality
from trimodal.data import read_manifest
from trimodal.errors import ConfigError, DataError
from trimodal.evaluation import embed_rows, evaluate, load_model
from trimodal.evaluation.evaluate import DIRECTIONS, FUSED_DIRECTIONS, retrieval
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.processors import TrimodalProcessor
from trimodal.schema import to_dict
from trimodal.testing import tiny_model_config, tiny_tokenizer, write_tiny_manifest

RETRIEVAL_KEYS = {
    *("R@1", "R@5", "R@10", "mAP", "median_rank", "chance", "queries", "unanswerable", "gallery")
}
ZERO_SHOT_KEYS = {"accuracy", "macro_f1", "chance", "samples", "per_class", "confusion"}


def _lines(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


def _numbers(tree: Any, path: str = "") -> dict[str, float]:
    """Every number of a tree by the path to it."""
    if isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for key, item in pairs for k, v in _numbers(item, f"{path}/{key}").items()}
    return {path: float(tree)} if isinstance(tree, int | float) else {}


def test_an_oracle_is_right_everywhere(oracle: Any, corpus: Path) -> None:
    results = evaluate(oracle, corpus)
    assert {*DIRECTIONS, *FUSED_DIRECTIONS} <= set(results["retrieval"])
    for found in (*results["retrieval"].values(), *results["retrieval_by_label"].values()):
        assert found["R@1"] == found["mAP"] == found["median_rank"] == 1
    directions = {f"{m}->text[{lang}]" for m in ("image", "speech") for lang in ("en", "zh")}
    assert set(results["zero_shot"]) == directions
    assert all(found["accuracy"] == 1 for found in results["zero_shot"].values())
    assert results["geometry"]["alignment"]["image-text"] == 0
    assert results["geometry"]["modality_gap"]["image-speech"] < 0.1


def test_copies_are_found_by_what_the_model_hears(
    model_folder: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the package calls its function by the name of the module
    module = importlib.import_module("trimodal.evaluation.evaluate")
    model, heard = load_model(model_folder), []

    def measured(*_: Any, speech: Any, **__: Any) -> dict[str, Any]:
        heard.append(speech)
        return {}

    monkeypatch.setattr(module, "generate_directions", lambda *_, **__: [])
    monkeypatch.setattr(module, "measure_generation", measured)
    evaluate(model, corpus)
    assert model.processor is not None
    assert heard == [model.processor.speech]


def test_the_tree_of_a_real_model_is_json_and_keeps_its_shape(
    model_folder: Path, corpus: Path
) -> None:
    results = evaluate(load_model(model_folder), corpus)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert set(results) == {
        *("manifest", "rows", "samples", "retrieval", "retrieval_by_label", "prompts"),
        *("zero_shot", "matryoshka", "geometry", "generation", "resynthesis"),
    }
    by_language = {
        direction
        for lang in ("en", "zh")
        for other in ("image", "speech")
        for direction in (f"{other}->text[{lang}]", f"text[{lang}]->{other}")
    }
    assert set(results["retrieval"]) == {*DIRECTIONS, *FUSED_DIRECTIONS, *by_language}
    assert set(results["retrieval_by_label"]) == {*DIRECTIONS, *FUSED_DIRECTIONS}
    assert all(set(found) == RETRIEVAL_KEYS for found in results["retrieval"].values())
    assert all(set(found) == ZERO_SHOT_KEYS for found in results["zero_shot"].values())
    assert set(results["matryoshka"]) == {"8", "16"}
    full = results["matryoshka"]["16"]
    for direction in DIRECTIONS:
        assert full["retrieval"][direction] == results["retrieval"][direction]["R@1"]
    assert full["zero_shot"] == {k: v["accuracy"] for k, v in results["zero_shot"].items()}
    assert {name: set(of) for name, of in results["geometry"].items()} == {
        "alignment": {"image-text", "image-speech", "text-speech"},
        "uniformity": {"image", "text", "speech"},
        "modality_gap": {"image-text", "image-speech", "text-speech"},
    }


def test_counts_are_those_of_the_manifest(oracle: Any, corpus: Path) -> None:
    rows = read_manifest(corpus)
    results = evaluate(oracle, corpus)
    has = {
        name: sum(name in row.data_names for row in rows) for name in ("image", "text", "speech")
    }
    assert results["manifest"] == str(corpus)
    assert results["rows"] == results["samples"]["fused"] == len(rows)
    assert {name: results["samples"][name] for name in has} == has
    both = sum({"image", "speech"} <= set(row.data_names) for row in rows)
    assert results["samples"]["image+speech"] == both < has["image"]
    found = results["retrieval"]["image->speech"]
    assert (found["queries"], found["gallery"]) == (has["image"], has["speech"])
    assert results["retrieval"]["image+speech->text"]["queries"] == both


def test_order_of_rows_changes_nothing(oracle: Any, corpus: Path) -> None:
    # mistakes and ties in plenty: pictures of two colours look alike, and speech says nothing
    oracle.answer = lambda m, colour: {0: min(colour, 2), 1: colour, 2: 0}[m]
    lines = _lines(corpus)
    expected = evaluate(oracle, corpus)
    order = np.random.default_rng(0).permutation(len(lines))
    shuffled = _write(corpus.with_name("shuffled.jsonl"), [lines[i] for i in order])
    results = evaluate(oracle, shuffled)
    assert results["retrieval"]["image->text"]["R@1"] < 1
    assert _numbers(results) == pytest.approx(_numbers(expected), abs=1e-6)


def test_a_modality_that_says_nothing_finds_nothing(oracle: Any, corpus: Path) -> None:
    oracle.answer = lambda m, colour: 0 if m is Modality.SPEECH else colour
    results = evaluate(oracle, corpus)
    assert results["retrieval"]["speech->image"]["R@1"] <= 0.5
    # red is what it always says, so it is right about red alone
    assert results["zero_shot"]["speech->text[en]"]["per_class"]["blue"] == 0
    assert results["zero_shot"]["speech->text[en]"]["per_class"]["red"] == 1


def test_a_manifest_of_two_modalities_has_their_directions_only(oracle: Any, corpus: Path) -> None:
    lines = [{k: v for k, v in line.items() if k != "speech"} for line in _lines(corpus)]
    kept = [line for line in lines if {"image", "text"} & set(line)]
    results = evaluate(oracle, _write(corpus.with_name("two.jsonl"), kept))
    assert {d for d in results["retrieval"] if "[" not in d} == {"image->text", "text->image"}
    assert set(results["zero_shot"]) == {"image->text[en]", "image->text[zh]"}
    assert set(results["geometry"]["uniformity"]) == {"image", "text"}


def test_without_labels_and_groups_a_row_finds_itself_alone(oracle: Any, tmp_path: Path) -> None:
    manifest = write_tiny_manifest(tmp_path, rows=4, complete=True)
    lines = [
        {k: v for k, v in line.items() if k not in ("label", "group")} for line in _lines(manifest)
    ]
    results = evaluate(oracle, _write(manifest, lines))
    assert results["retrieval_by_label"] == results["zero_shot"] == {}
    assert results["retrieval"]["image->text"]["chance"] == 0.25
    assert results["retrieval"]["image->text"]["R@1"] == 1


def test_rows_with_both_languages_are_scored_in_each(oracle: Any, tmp_path: Path) -> None:
    manifest = write_tiny_manifest(tmp_path, rows=4, complete=True)
    lines = _lines(manifest)
    chinese = dict(zip(("red", "green", "blue", "white"), "蓝蓝蓝蓝", strict=True))
    for line in lines:  # every Chinese text says blue
        line |= {"text": line["label"], "lang": "en", "text_zh": f"{chinese[line['label']]}色"}
    found = evaluate(oracle, _write(manifest, lines))["retrieval"]
    assert found["image->text"]["R@1"] == found["image->text[en]"]["R@1"] == 1
    assert found["image->text[zh]"]["R@1"] == 0
    assert found["text[zh]->image"]["R@1"] == 0.25


def test_only_labelled_rows_take_part_by_label(oracle: Any, corpus: Path) -> None:
    rows = read_manifest(corpus)
    vectors = embed_rows(oracle, rows)
    unlabelled = [row if i % 2 else type(row)(id=row.id) for i, row in enumerate(rows)]
    found = retrieval(unlabelled, vectors, ["image->speech"], "label")["image->speech"]
    assert found["queries"] == sum("image" in row.data_names for row in rows[1::2])


def test_prompts_come_from_the_file_that_is_given(
    oracle: Any, corpus: Path, tmp_path: Path
) -> None:
    tree = {word: {"en": [word, "blue"]} for word in ("red", "green", "blue", "white")}
    prompts = tmp_path / "p.json"
    prompts.write_text(json.dumps(tree))
    results = evaluate(oracle, corpus, prompts=prompts)
    assert results["prompts"] == str(prompts)
    found = results["zero_shot"]["image->text[en]"]
    assert found["bare"] == 1
    assert set(results["zero_shot"]) == {"image->text[en]", "speech->text[en]"}


def test_dimensions_are_checked_before_anything_is_computed(oracle: Any, corpus: Path) -> None:
    assert set(evaluate(oracle, corpus, dimensions=[8])["matryoshka"]) == {"8"}
    oracle.batches.clear()
    with pytest.raises(ConfigError, match="12 is not one that this model was trained for: 8, 16"):
        evaluate(oracle, corpus, dimensions=[8, 12])
    assert oracle.batches == []


def test_a_classification_head_is_scored(oracle: Any, corpus: Path) -> None:
    rows = read_manifest(corpus)
    oracle.class_labels = ("red", "green", "blue")
    oracle.answer = lambda m, colour: 0 if m is Modality.SPEECH else colour
    found = evaluate(oracle, corpus)["classification"]
    known = [row for row in rows if row.label != "white"]
    able = [row for row in known if row.image or row.speech]
    assert found["inputs"] == ["image", "speech"]
    assert found["samples"] == len(able)
    assert found["unknown_label"] == len(rows) - len(known)
    assert found["no_input"] == len(known) - len(able) == 1
    assert found["alone"]["image"]["accuracy"] == 1
    spoken = [row.label for row in known if row.speech]
    assert found["alone"]["speech"]["accuracy"] == spoken.count("red") / len(spoken)


def test_the_head_of_a_real_model_is_scored(corpus: Path) -> None:
    config = TrimodalConfig(
        architecture=to_dict(tiny_model_config()),
        class_labels=["red", "green", "blue", "white"],
        class_inputs=["speech"],
    )
    model = TrimodalModel(config).eval()
    model.processor = TrimodalProcessor(tiny_model_config(), tiny_tokenizer())
    found = evaluate(model, corpus)["classification"]
    spoken = [row for row in read_manifest(corpus) if row.speech]
    assert (found["inputs"], found["samples"]) == (["speech"], len(spoken))
    assert found["alone"] == {}
    assert np.sum(found["confusion"]["matrix"]) == len(spoken)


def test_a_head_for_other_labels_is_no_error(oracle: Any, corpus: Path) -> None:
    oracle.class_labels = ("cat", "dog")
    oracle.config = SimpleNamespace(class_inputs=["image"], generates=[], answers=None)
    found = evaluate(oracle, corpus)["classification"]
    assert found == {
        "inputs": ["image"],
        "samples": 0,
        "alone": {},
        "unknown_label": 32,
        "no_input": 0,
    }


def test_a_missing_manifest_is_one_sentence(oracle: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.jsonl cannot be read"):
        evaluate(oracle, tmp_path / "nowhere.jsonl")
