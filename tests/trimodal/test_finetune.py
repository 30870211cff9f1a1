import re
from pathlib import Path

import numpy as np
import pytest
import torch

import trimodal
from trimodal.errors import ConfigError, DataError, NumericError
from trimodal.evaluation import evaluate
from trimodal.finetune import finetune
from trimodal.models import TrimodalModel
from trimodal.testing import (
    assert_close,
    tiny_model,
    write_tiny_manifest,
)


@pytest.fixture
def model() -> TrimodalModel:
    return tiny_model()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_tiny_manifest(tmp_path / "data", rows=32, complete=True)


@pytest.mark.parametrize(("settings"), [{}, {"lora": 4}, {"freeze": True}])
def test_it_learns_saves_loads_and_evaluates(
    model: TrimodalModel, manifest: Path, tmp_path: Path, settings: dict
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tuned = finetune(model, manifest, epochs=30, batch_size=16, learning_rate=5e-3, **settings)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert tuned.class_labels == ("blue", "green", "red", "white")
    assert set(tuned.state_dict()) == set(before) | {"classifier.weight", "classifier.bias"}
    tuned.save_pretrained(tmp_path / "tuned")
    again = trimodal.load(tmp_path / "tuned")
    held_out = write_tiny_manifest(tmp_path / "data", rows=32, name="test", complete=True)
    assert evaluate(again, held_out)["classification"]["accuracy"] > 0.6
    picture = np.full((8, 8, 3), 200, np.uint8)
    vectors = [each.embed(image=[picture])["image"] for each in (again, tuned)]
    assert_close(vectors[0], vectors[1], "fp32")


def test_freezing_leaves_the_embeddings(model: TrimodalModel, manifest: Path) -> None:
    tuned = finetune(model, manifest, epochs=1, freeze=True)
    assert_close(tuned.embed(text=["a"])["text"], model.embed(text=["a"])["text"], "exact")


def test_the_same_seed_gives_the_same_model(model: TrimodalModel, manifest: Path) -> None:
    first, second = (finetune(model, manifest, epochs=1, seed=3) for _ in range(2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": 4, "freeze": True}, "contradict"),
        ({"lora": 0}, "rank must be at least 1"),
        ({"epochs": 0}, "at least 1"),
        ({"inputs": ["picture"]}, "picture"),
        ({"inputs": []}, "none"),
        ({"learning_rate": -1.0}, "learning_rate: must be above 0, got -1"),
        ({"learning_rate": float("nan")}, "learning_rate: must be above 0, got nan"),
        ({"seed": -1}, "seed: must be from 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    model: TrimodalModel, manifest: Path, settings: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        finetune(model, manifest, **settings)


def test_rows_that_cannot_be_learnt_from_are_named(model: TrimodalModel, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a", "text": "red", "label": "red"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:1: has none of image, speech"):
        finetune(model, path)
    path.write_text('{"id": "a", "text": "red"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:1: has no label"):
        finetune(model, path)


def test_weights_that_are_not_finite_end_it(model: TrimodalModel, manifest: Path) -> None:
    with torch.no_grad():
        model.fusion.projection.weight.fill_(float("nan"))
    with pytest.raises(NumericError, match="epoch 1: the loss is nan"):
        finetune(model, manifest, epochs=1)


def test_progress_is_said_only_when_asked(
    model: TrimodalModel, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(model, manifest, epochs=2)
    assert capsys.readouterr().err == ""
    finetune(model, manifest, epochs=2, progress=True)
    assert "trained on 64 of 64 rows" in capsys.readouterr().err


def test_the_loss_and_the_share_that_is_right_are_told(
    model: TrimodalModel, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(model, manifest, epochs=30, batch_size=16, learning_rate=5e-3, progress=True)
    told = re.findall(r"^epoch (\d+) .* loss ([\d.]+), ([\d.]+)%", capsys.readouterr().err, re.M)
    assert [int(epoch) for epoch, _, _ in told] == list(range(1, 31))
    assert float(told[-1][1]) < 0.6 * float(told[0][1])
    assert float(told[-1][2]) > max(60.0, float(told[0][2]))
