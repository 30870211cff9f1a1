import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import trimodal
from trimodal.errors import StorageError
from trimodal.models import TrimodalModel


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StorageError, match="is not a model folder"):
            trimodal.load(folder)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(StorageError, match="another kind of model"):
        trimodal.load(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "missing", "other architecture", "no processor"])
def test_a_damaged_model_is_refused(model: TrimodalModel, tmp_path: Path, damage: str) -> None:
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "missing":
        weights.unlink()
    elif damage == "no processor":
        (tmp_path / "processor_config.json").unlink()
    else:
        tree = json.loads((tmp_path / "config.json").read_text())
        tree["architecture"]["trunk"]["depth"] = 5
        (tmp_path / "config.json").write_text(json.dumps(tree))
    with pytest.raises(StorageError, match=str(tmp_path)):
        trimodal.load(tmp_path)


def _set(path: Path, key: str, value: Any) -> None:
    """Change the value at a dotted key of a JSON file."""
    tree = node = json.loads(path.read_text(encoding="utf-8"))
    *parents, leaf = key.split(".")
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    path.write_text(json.dumps(tree), encoding="utf-8")


BAD = "config.json holds a value that cannot be used: "


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [
        ("class_labels", "abc", "class_labels must be a list of strings"),
        ("class_labels", [1, 2], "class_labels must be a list of strings"),
        ("class_labels", None, "class_labels must be a list of strings"),
        ("class_inputs", 5, "class_inputs must be a list of any of image, text, speech"),
        ("class_inputs", ["smell"], "class_inputs must be a list of any of image, text, speech"),
        ("answers", "yes", "answers must be true or false"),
        ("answers", 0, "answers must be true or false"),
        ("id2label", 5, BAD),
        ("dtype", "foo", BAD),
        ("attn_implementation", "zzz", BAD),
        ("rope_parameters", 5, BAD),
        ("architecture", 5, "config.json: architecture: expected keys, got 5"),
        ("architecture.trunk.mlp_ratio", 1e300, BAD),
        ("architecture.trunk.mlp_ratio", 10**400, "mlp_ratio: expected float, got 1000"),
        ("architecture.trunk.depth", 10**9, "depth: 1000000000 is not in"),
        ("architecture.vision_input.patch_size", 10**9, BAD),
        ("architecture.embedding_dim", 10**15, "is [16, 160], expected [1000000000000000, 160]"),
        ("architecture.vocabulary.text", 10**12, "is [608, 32], expected [1000000000096, 32]"),
        ("architecture.trunk.depth", 3, "is missing, expected [32]"),
        ("architecture.trunk.depth", 1, "is [16], expected none"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_named(
    model: TrimodalModel, tmp_path: Path, key: str, value: object, cause: str
) -> None:
    model.save_pretrained(tmp_path)
    _set(tmp_path / "config.json", key, value)
    with pytest.raises(StorageError) as caught:
        trimodal.load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [
        ("model.vision_input.patch_size", 8, "model.vision_codes: must be 4"),
        ("model.vision_input.max_tokens", 8, "does not fit config.json"),
        ("model.speech_input.num_mels", 8, "the speech tokenizer reads other frames"),
        ("model.speech_input.sample_rate", 10**9, "sample_rate: 1000000000 is not in"),
        ("model.speech_input.window_ms", 1e9, "window_ms: 1000000000.0 is not in"),
        ("model.vocabulary.text", 8, "8 ids are too few"),
    ],
    ids=str,
)
def test_the_processor_of_another_model_is_refused(
    model: TrimodalModel, tmp_path: Path, key: str, value: object, cause: str
) -> None:
    model.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    _set(path, key, value)
    with pytest.raises(StorageError) as caught:
        trimodal.load(tmp_path)
    assert str(caught.value).startswith(str(path))
    assert cause in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "processor_config.json"])
def test_json_nested_deeply_is_refused(model: TrimodalModel, tmp_path: Path, name: str) -> None:
    model.save_pretrained(tmp_path)
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(StorageError, match=str(tmp_path)):
        trimodal.load(tmp_path)


def test_weights_that_are_no_floats_are_refused(model: TrimodalModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "logit_bias": torch.tensor([1])}, path)
    with pytest.raises(StorageError, match="logit_bias has values of type I64, not floats"):
        trimodal.load(tmp_path)
    save_file({name: weight.bfloat16() for name, weight in weights.items()}, path)
    assert trimodal.load(tmp_path).dtype == torch.float32
