"""Single flipped bits all over the newest of a run's checkpoints.

python tests/faults/flips.py CONFIG.yaml OUT.json --flips 1000
"""

import argparse
import contextlib
import io
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from forks import at, train_whole

from trimodal.config import load_config
from trimodal.training.checkpoint import Checkpoint, load_newest


def outcome(folder: Path, path: Path, good: Checkpoint) -> str:
    """What a damaged file led to: `detected`, `harmless`, or what should not be."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        loaded = load_newest(folder)
    if loaded is None:
        return "nothing is left"
    if loaded.step == good.step:
        same = loaded.state == good.state and all(
            torch.equal(x, loaded.tensors[stem][name])
            for stem, named in good.tensors.items()
            for name, x in named.items()
        )
        return "harmless" if same else "silent"
    # a flip in the manifest's own hash of a file looks like one in that file
    named = path.name in told.getvalue() or path.name == "manifest.json"
    return "detected" if named else "detected, file not named"


def main() -> None:
    """Write how often each outcome came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--flips", type=int, default=60)
    options = parser.parse_args()
    config = at(load_config(options.config), "flips")
    assert train_whole(config) == [0]
    folder = Path(config.run_dir) / "checkpoints"
    good = load_newest(folder)
    assert good is not None
    newest = folder / f"step-{good.step:08d}"
    files = sorted(newest.iterdir())
    rng = random.Random(0)  # noqa: S311 - no secret
    found: dict[str, dict[str, int]] = {path.name: {} for path in files}
    for number in range(options.flips):
        # every file in turn, for most bytes are weights
        path = files[number % len(files)]
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        kind = outcome(folder, path, good)
        path.write_bytes(content)
        found[path.name][kind] = found[path.name].get(kind, 0) + 1
    assert outcome(folder, newest, good) == "harmless", "all is as it was"
    options.out.write_text(json.dumps({"files": found}))


if __name__ == "__main__":
    main()
