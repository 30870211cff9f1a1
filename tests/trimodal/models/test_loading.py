import json
from pathlib import Path

import pytest

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
