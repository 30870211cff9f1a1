import json
from dataclasses import replace
from pathlib import Path

import pytest

from trimodal.config import RunConfig
from trimodal.data import read_manifest
from trimodal.errors import DataError
from trimodal.evaluation import evaluate
from trimodal.testing import assert_close, tiny_model, write_tiny_manifest
from trimodal.training.trainer import train
from trimodal.training.validation import validate


def test_the_scores_are_those_of_evaluation(tmp_path: Path) -> None:
    manifest = write_tiny_manifest(tmp_path, name="val")
    model = tiny_model().train()
    scores = validate(model, read_manifest(manifest), token_budget=64)
    assert model.training
    results = evaluate(model.eval(), manifest)
    found = {
        f"validation/{direction}": found["R@1"]
        for direction, found in results["retrieval"].items()
        if f"validation/{direction}" in scores
    }
    assert len(found) == 6
    shape = {
        f"embedding/{measure}/{name}": value
        for measure, values in results["geometry"].items()
        for name, value in values.items()
    }
    assert len(shape) == 9
    expected = found | shape
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(scores[name], value, "fp32")


def test_a_run_scores_itself_as_configured_and_learns_the_same(
    trained: RunConfig, config: RunConfig, tmp_path: Path
) -> None:
    manifest = write_tiny_manifest(tmp_path / "val", name="val", complete=True)
    watched = replace(
        config,
        data=replace(config.data, validation=str(manifest)),
        training=replace(config.training, validate_every=4),
    )
    train(watched)
    plain, scored = (
        [json.loads(line) for line in (Path(c.run_dir) / "metrics.jsonl").read_text().splitlines()]
        for c in (trained, watched)
    )
    with_scores = [line["step"] for line in scored if "validation/image->text" in line]
    assert with_scores == [4, 6], "every fourth step and the last"
    assert [line["loss"] for line in scored] == [line["loss"] for line in plain]


def test_a_held_out_medium_that_is_broken_is_named(config: RunConfig, tmp_path: Path) -> None:
    manifest = write_tiny_manifest(tmp_path / "val", name="val", rows=4)
    (tmp_path / "val" / "val-3.png").write_bytes(b"\x89PNG broken")
    watched = replace(
        config,
        data=replace(config.data, validation=str(manifest)),
        training=replace(config.training, validate_every=1),
    )
    with pytest.raises(DataError, match=r"val\.jsonl:4: image"):
        train(watched)
