"""A run of moments with everything that is random switched on, and scripts that do it harm."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trimodal.schema import to_dict
from trimodal.testing import (
    tiny_model_config,
    tiny_tokenizer,
    tiny_tokenizers,
    write_tiny_manifest,
)

HERE = Path(__file__).parent
LONGEST = 4 * 3600
"""Seconds that a script may take: 20,000 steps do on one slow core."""
Harm = Callable[..., dict[str, Any]]
Host = Callable[..., list[int]]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tokenizers and 40 rows, some with questions, which no script changes."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text.model").write_bytes(tiny_tokenizer())
    tiny_tokenizers().save(folder / "tokenizers")
    manifest = write_tiny_manifest(folder, rows=40)
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for i, row in enumerate(rows):
        row["speech_lang"] = ("en", "zh")[i % 2]
        if i % 3 == 0:
            row |= {"question": "is it red?", "answer": "yes" if row["label"] == "red" else "no"}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def tree(tmp_path: Path, corpus: Path) -> dict[str, Any]:
    """The configuration: all objectives, dropout, augmentation, samples that lack modalities."""
    model = to_dict(tiny_model_config())
    for stack in ("vision", "text", "speech", "trunk"):
        model[stack]["dropout"] = 0.1
    return {
        "run_dir": str(tmp_path / "run"),
        "data": {
            "train": [str(corpus / "train.jsonl")],
            "tokenizer": str(corpus / "text.model"),
            "tokenizers": str(corpus / "tokenizers"),
            "num_workers": 0,
            "vision_augment": {"rotate_degrees": 10, "shift": 0.1},
            "speech_augment": {"stretch": 0.2, "warp": 0.1, "noise": 0.5, "time_mask": 0.1},
        },
        "model": model,
        "objectives": {
            "contrastive": {},
            "masked": {"rate": 0.5, "vision_target": "codes"},
            "target": {"rate": 0.5},
            "causal": {"rate": 0.5},
            "length": {},
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
def harm(tmp_path: Path, tree: dict[str, Any], host: Host) -> Harm:
    """What a script of this folder says about a run: `harm("kills.py", kills=5)`."""

    def run(script: str, **options: Any) -> dict[str, Any]:
        config, out = tmp_path / "run.yaml", tmp_path / "out.json"
        config.write_text(yaml.safe_dump(tree))
        named = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = [str(HERE / script), str(config), str(out), *named]
        statuses = host(command, tmp_path, patience=LONGEST)
        stderr = (tmp_path / "stderr").read_text()
        assert statuses == [0], stderr[-4000:]
        return {**json.loads(out.read_text()), "stderr": stderr}

    return run
