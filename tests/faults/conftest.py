"""A run of moments with everything that is random switched on, and scripts that do it harm."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from trimodal.schema import to_dict
from trimodal.testing import tiny_model_config, tiny_tokenizer, write_tiny_manifest

HERE = Path(__file__).parent
Harm = Callable[..., dict[str, Any]]


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    """The configuration: dropout, augmentation, samples that lack modalities."""
    (tmp_path / "text.model").write_bytes(tiny_tokenizer())
    manifest = write_tiny_manifest(tmp_path / "data", rows=40)
    model = to_dict(tiny_model_config())
    for stack in ("vision", "text", "speech", "trunk"):
        model[stack]["dropout"] = 0.1
    return {
        "run_dir": "replaced",
        "data": {
            "train": [str(manifest)],
            "tokenizer": str(tmp_path / "text.model"),
            "num_workers": 0,
            "vision_augment": {"rotate_degrees": 10, "shift": 0.1},
            "speech_augment": {"stretch": 0.2, "warp": 0.1, "noise": 0.5, "time_mask": 0.1},
        },
        "model": model,
        "objectives": {
            "contrastive": {},
            "masked": {"rate": 0.5},
            "causal": {"rate": 0.5},
            "matching": {"rate": 0.25},
        },
        "training": {
            "max_steps": 24,
            "batch_size": 8,
            "token_budget": 400,
            "warmup_steps": 2,
            "learning_rate": 3.0e-3,
            "checkpoint_every": 3,
            "trackers": [],
        },
    }


@pytest.fixture
def harm(tmp_path: Path, tree: dict[str, Any]) -> Harm:
    """What a script of this folder says about a run: `harm("kills.py", kills=5)`."""

    def run(script: str, within: Sequence[str] = (), **options: Any) -> dict[str, Any]:
        config, out = tmp_path / "run.yaml", tmp_path / "out.json"
        config.write_text(yaml.safe_dump(tree))
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        done = subprocess.run(
            [*within, sys.executable, str(HERE / script), str(config), str(out), *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return {**json.loads(out.read_text()), "stderr": done.stderr}

    return run
