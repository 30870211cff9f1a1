"""A stop of several processes, as schedulers and launchers ask for it: nothing is lost."""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from trimodal.schema import to_dict
from trimodal.testing import tiny_model_config, tiny_tokenizer, write_tiny_manifest

SCRIPT = str(Path(__file__).with_name("stopped_ranks.py"))
LAUNCHED = str(Path(__file__).with_name("launched.py"))
LAUNCH = [LAUNCHED, "2", "--standalone", "--nproc_per_node", "2"]
PROCESSES = ("launcher", "0", "1")
STEPS = 4000
PATIENCE = 240


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a run that has not ended when it is stopped, and has no other checkpoint."""
    (tmp_path / "text.model").write_bytes(tiny_tokenizer())
    tree: dict[str, Any] = {
        "run_dir": str(tmp_path / "run"),
        "data": {
            "train": [str(write_tiny_manifest(tmp_path / "data", rows=16))],
            "tokenizer": str(tmp_path / "text.model"),
            "num_workers": 0,
        },
        "model": to_dict(tiny_model_config()),
        "objectives": {"contrastive": {}},
        "training": {
            "max_steps": STEPS,
            "batch_size": 4,
            "checkpoint_every": STEPS,
            "trackers": [],
        },
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def wait_for(path: Path, lines: int) -> None:
    """Until a file has so many."""
    end = time.monotonic() + PATIENCE
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("everyone", [True, False], ids=["all processes twice", "one rank once"])
def test_all_ranks_end_when_what_was_done_is_saved(
    config: Path, tmp_path: Path, host: Callable[..., list[int]], everyone: bool
) -> None:
    """A scheduler signals each process; torchrun signals its ranks again, or once one has ended."""
    metrics = tmp_path / "run" / "metrics.jsonl"
    command = [*LAUNCH, SCRIPT, str(tmp_path), str(config), f"run_dir={tmp_path / 'run'}"]
    with ThreadPoolExecutor(1) as pool:
        launched = pool.submit(host, command, tmp_path)
        wait_for(metrics, 3)
        launcher, *ranks = (int((tmp_path / f"{name}.pid").read_text()) for name in PROCESSES)
        for pid in [launcher, *ranks] if everyone else ranks[1:]:
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        for pid in ranks if everyone else ():
            os.kill(pid, signal.SIGTERM)
        assert launched.result() != [0]
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    saved = [f"step-{last:08d}"]
    for rank in range(2):
        ended = tmp_path / f"{rank}.json"
        assert ended.exists(), (tmp_path / "stderr").read_text()[-3000:]
        assert json.loads(ended.read_text()) == [75, saved]
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == saved
