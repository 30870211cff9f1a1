"""A writer of checkpoints that dies at every stage of its way, one after the other.

python tests/faults/stages.py CONFIG.yaml OUT.json

Every call that touches the disk is a stage, and the process dies before it or after it.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from forks import at, wait, wrap

from trimodal.config import load_config
from trimodal.training import checkpoint

TENSORS = {
    "model": {f"layer{i}": torch.full((64, 64), float(i)) for i in range(4)},
    "optimizer": {f"layer{i}::step": torch.tensor(float(i)) for i in range(4)},
}


def stages() -> list[tuple[Any, str]]:
    """Where each function lives that a checkpoint's way leads through."""
    own = [(checkpoint, name) for name in ("save_file", "_entry", "sync", "_remove")]
    disk = [(Path, name) for name in ("mkdir", "write_text", "rename", "unlink")]
    return [*own, *disk, (shutil, "rmtree")]


def watch(happen: Callable[[bool], None]) -> None:
    """Call `happen(False)` before and `happen(True)` after each stage."""

    def counted(stage: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        happen(False)
        made = stage(*arguments, **options)
        happen(True)
        return made

    for owner, name in stages():
        wrap(owner, name, counted)


def write(folder: Path, step: int, dies_at: int | None = None) -> int:
    """Write a checkpoint in a child that may die on the way; its status."""
    pid = os.fork()
    if pid:
        return wait(pid)
    passed, lock = 0, threading.Lock()

    def happen(_: bool) -> None:
        nonlocal passed
        with lock:  # hashes are taken by a thread of their own
            if passed == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            passed += 1

    watch(happen)
    checkpoint.save(folder, step, TENSORS, {"step": step}, keep=2)
    os._exit(0)


def main() -> None:
    """Write what was found: how each death ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    run = Path(at(load_config(options.config), "stages").run_dir)
    found = {name: deaths(run / name, damaged=name == "over") for name in ("new", "over")}
    options.out.write_text(json.dumps(found))


def deaths(folder: Path, *, damaged: bool) -> list[dict[str, Any]]:
    """How the third checkpoint fares whose writer dies ever later, until it does not.

    Args:
        folder: for the checkpoints.
        damaged: one of its step is there already, which a run went back behind.
    """
    found: list[dict[str, Any]] = []
    first = folder.with_name(f"{folder.name}-first")
    for step in (1, 2):
        assert write(first, step) == 0
    before = digests(first / "step-00000002")
    if damaged:
        shutil.copytree(first / "step-00000002", first / "step-00000003")
        (first / "step-00000003" / "model.safetensors").write_bytes(b"damaged")
    died = True
    while died:
        shutil.copytree(first, folder)
        died = write(folder, 3, dies_at=len(found)) == -signal.SIGKILL
        loaded = checkpoint.load_newest(folder)
        assert loaded is not None
        after = digests(folder / "step-00000002")
        assert write(folder, 4) == 0
        found.append(
            {
                "died": died,
                "step": loaded.step,
                "whole": loaded.state["step"] == loaded.step
                and loaded.tensors["model"].keys() == TENSORS["model"].keys(),
                "former": loaded.step == 3 or before == after,
                "left": [p.name for p in folder.iterdir() if p.name.startswith(".tmp-")],
            }
        )
        shutil.rmtree(folder)
    return found


def digests(folder: Path) -> dict[str, str]:
    """Of the files of a checkpoint."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


if __name__ == "__main__":
    main()
