"""The documented way to start training, through accelerate's launcher and a loader process."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from trimodal.schema import to_dict
from trimodal.testing import tiny_model_config, tiny_tokenizer, write_tiny_manifest


@pytest.mark.slow
def test_a_broken_medium_is_one_sentence(tmp_path: Path, host: Callable[..., list[int]]) -> None:
    (tmp_path / "text.model").write_bytes(tiny_tokenizer())
    manifest = write_tiny_manifest(tmp_path / "data", rows=8)
    (tmp_path / "data" / "train-3.png").write_bytes(b"\x89PNG broken")
    tree = {
        "run_dir": str(tmp_path / "run"),
        "data": {"train": [str(manifest)], "tokenizer": str(tmp_path / "text.model")},
        "model": to_dict(tiny_model_config()),
        "objectives": {"contrastive": {}},
        "training": {"max_steps": 2, "batch_size": 8, "trackers": []},
    }
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tree))
    launcher = ["-m", "accelerate.commands.launch", "--quiet", "--cpu"]
    plain = ["--num_processes", "1", "--num_machines", "1", "--dynamo_backend", "no"]
    precise = ["--mixed_precision", "no"]
    command = [*launcher, *plain, *precise, "-m", "trimodal.train", str(config)]
    assert host(command, tmp_path) == [1]
    said = f"trimodal: error: {manifest}:4: image is not a PNG, JPEG or WebP picture\n"
    assert (tmp_path / "stderr").read_text() == said
