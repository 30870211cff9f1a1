"""One rank of a run whose checkpoints take seconds to write.

torchrun --nproc_per_node 2 tests/integration/stopped_ranks.py NOTES CONFIG.yaml [key=value ...]

Each leaves its process id and that of torchrun in NOTES, and at its end its status and the
checkpoints that are there.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from trimodal.train import main
from trimodal.training import checkpoint

SECONDS = 0.5
"""That each file of a checkpoint takes longer."""


def slowed(path: Path) -> dict[str, Any]:
    """As before, later."""
    time.sleep(SECONDS)
    return entry(path)


if __name__ == "__main__":
    notes, *arguments = sys.argv[1:]
    entry, checkpoint._entry = checkpoint._entry, slowed
    rank = os.environ["RANK"]
    Path(notes, "launcher.pid").write_text(str(os.getppid()))
    Path(notes, f"{rank}.pid").write_text(str(os.getpid()))
    status = main(arguments)
    run = next(item for item in arguments if item.startswith("run_dir=")).removeprefix("run_dir=")
    saved = sorted(path.name for path in Path(run, "checkpoints").glob("step-*"))
    Path(notes, f"{rank}.json").write_text(json.dumps([status, saved]))
    sys.exit(status)
