"""Two gloo processes against one: the same samples, the same losses, the same gradients."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from trimodal.testing import assert_close, tiny_tokenizer, write_tiny_manifest

Ranks = Callable[..., str]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [8, pytest.param(100, marks=pytest.mark.faults)])
def test_ranks_that_lack_a_modality_train_as_one_process(
    tmp_path: Path, ranks: Ranks, steps: int
) -> None:
    """Rank 0 has no speech, rank 1 no pictures and at times more micro-batches."""
    script = str(Path(__file__).with_name("two_ranks.py"))
    found = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        ranks(processes, script, str(out), str(steps))
        found.append(json.loads(out.read_text()))
    assert_close(found[1]["losses"], found[0]["losses"], "two-processes-loss")
    assert found[0]["grads"].keys() == found[1]["grads"].keys()
    for name, grad in found[0]["grads"].items():
        expected, largest = torch.tensor(grad), max(1.0, *map(abs, grad))
        actual = torch.tensor(found[1]["grads"][name])
        assert_close(actual / largest, expected / largest, "two-processes-gradient")


@pytest.mark.slow
def test_sharded_parameters_have_the_gradients_of_whole_ones(tmp_path: Path, ranks: Ranks) -> None:
    """Kernels under FSDP2, which shows them parameters only while a module computes."""
    out = tmp_path / "out.json"
    ranks(2, str(Path(__file__).with_name("sharded_ranks.py")), str(out))
    whole, sharded = json.loads(out.read_text())
    assert whole.keys() == sharded.keys()
    for name, grad in whole.items():
        assert_close(sharded[name], grad, "two-processes-gradient")


def small_run(tmp_path: Path) -> dict[str, Any]:
    """A configuration with augmentation and ragged, incomplete samples."""
    (tmp_path / "text.model").write_bytes(tiny_tokenizer())
    manifest = write_tiny_manifest(tmp_path / "data", rows=24)
    stack = {"width": 32, "depth": 1, "num_heads": 2}
    return {
        "run_dir": "replaced",
        "data": {
            "train": [str(manifest)],
            "tokenizer": str(tmp_path / "text.model"),
            "num_workers": 0,
            "speech_augment": {"stretch": 0.2, "noise": 0.5},
        },
        "model": {
            **dict.fromkeys(("vision", "text", "speech", "trunk"), stack),
            "vision_input": {"patch_size": 4},
            "speech_input": {"num_mels": 16},
            "vocabulary": {"text": 512, "vision": 16, "speech": 16},
            "embedding_dim": 16,
        },
        "objectives": {"contrastive": {}, "masked": {}},
        "training": {
            "max_steps": 50, "batch_size": 8, "warmup_steps": 5, "trackers": []
        },
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("steps", [15, pytest.param(50, marks=pytest.mark.faults)])
def test_two_processes_have_the_losses_of_one(tmp_path: Path, ranks: Ranks, steps: int) -> None:
    """The command that users run."""
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(small_run(tmp_path)))
    losses = []
    for processes in (1, 2):
        run = tmp_path / f"run{processes}"
        settings = [f"run_dir={run}", f"training.max_steps={steps}"]
        ranks(processes, "-m", "trimodal.train", str(config), *settings)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert len(losses[0]) == steps
    assert_close(losses[1], losses[0], "two-processes-loss")


@pytest.mark.slow
def test_two_processes_average_towers_of_which_one_is_frozen(tmp_path: Path, ranks: Ranks) -> None:
    """A locked tower on both ranks; what is exported is the average of the checkpoints by hand."""
    tree = small_run(tmp_path)
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tree))
    first, run = tmp_path / "first", tmp_path / "run"
    ranks(1, "-m", "trimodal.train", str(config), f"run_dir={first}", "training.max_steps=2")
    tree["training"] |= {
        "max_steps": 6,
        "checkpoint_every": 1,
        "keep_checkpoints": 6,
        "ema": {"decay": 0.4},
        "start_from": {"vision": str(first / "model")},
        "frozen": ["vision"],
        "layer_decay": {"text": 0.5},
    }
    config.write_text(yaml.safe_dump(tree))
    ranks(2, "-m", "trimodal.train", str(config), f"run_dir={run}")
    folders = sorted((run / "checkpoints").iterdir())
    expected = load_file(folders[0] / "average.safetensors")
    for n, folder in enumerate(folders[1:], start=2):
        decay = min(0.4, (1 + n) / (10 + n))
        for name, weight in load_file(folder / "model.safetensors").items():
            if name in expected:
                expected[name].lerp_(weight, 1 - decay)
    exported = load_file(run / "model" / "model.safetensors")
    frozen = load_file(first / "model" / "model.safetensors")
    kept = exported.keys() - expected.keys()
    ways = ("to_trunk", "summary")  # into the trunk, which is trained
    tower = {n for n in exported if n.startswith("encoders.0.") and n.split(".")[2] not in ways}
    assert kept == tower
    assert all(exported[name].equal(frozen[name]) for name in kept)
    assert all(exported[n].equal(value) for n, value in expected.items() if n != "updates")
