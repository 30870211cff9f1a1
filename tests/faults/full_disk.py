"""A run whose disk is full before its next checkpoint is whole.

python tests/faults/full_disk.py CONFIG.yaml OUT.json

The folder of checkpoints is a file system in memory, which this process may mount because it is
root of a namespace of its own.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forks import at, train_whole
from stages import digests

from trimodal.config import load_config
from trimodal.training.checkpoint import load_newest

NAMESPACES = 0x1000_0000 | 0x0002_0000
"""CLONE_NEWUSER and CLONE_NEWNS of Linux; `os.unshare` is of Python 3.12."""


def become_root() -> None:
    """As `unshare --user --map-root-user --mount` does; for a process of one thread."""
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NAMESPACES):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def main() -> None:
    """Write how a run ends at each size of its disk."""
    become_root()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", type=int, default=3)
    options = parser.parse_args()
    config = load_config(options.config)
    every = config.training.checkpoint_every
    settings = replace(config.training, max_steps=every, keep_checkpoints=1)
    first = replace(at(config, "first"), training=settings)
    assert train_whole(first) == [0]
    [source] = (Path(first.run_dir) / "checkpoints").glob("step-*")
    size = sum(path.stat().st_size for path in source.iterdir())
    found = []
    for i in range(options.sizes):
        # room for one checkpoint, and for ever more of a second one, but never for all of it
        room = int(size * (1.02 + 0.96 * i / max(1, options.sizes - 1)))
        run = at(config, f"full{i}")
        checkpoints = Path(run.run_dir) / "checkpoints"
        checkpoints.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(checkpoints)]
        subprocess.run(mount, check=True)
        early = replace(run, training=settings)
        statuses = train_whole(early)
        [kept] = checkpoints.glob("step-*")
        before = digests(kept)
        later = replace(run, training=replace(settings, max_steps=2 * every))
        statuses += train_whole(later)
        loaded = load_newest(checkpoints)
        found.append(
            {
                "room": room / size,
                "statuses": statuses,
                "step": loaded.step if loaded else None,
                "same": digests(kept) == before,
                "left": sorted(path.name for path in checkpoints.iterdir()),
            }
        )
        subprocess.run(["umount", "--lazy", str(checkpoints)], check=True)
    options.out.write_text(json.dumps({"disks": found, "every": every}))


if __name__ == "__main__":
    main()
