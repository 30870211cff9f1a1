"""Where the numbers of a step go: metrics.jsonl, and a bar on a terminal or plain lines elsewhere.

with StepReporter(run.metrics, total=400, start=0) as reporter: reporter.step(1, {"loss": 0.7})
"""

import contextlib
import json
import math
import sys
from pathlib import Path

from tqdm import tqdm

from trimodal.storage import naming

STEPS_A_LINE = 50
HIDDEN = ("learning_rate", "gradient_norm")


class StepReporter:
    """One line a step into the file."""

    def __init__(self, metrics: Path, total: int, start: int) -> None:
        self.total = total
        self.name = metrics.parent.name
        self._path = metrics
        with naming(metrics, "written"):
            self._file = metrics.open("a", encoding="utf-8")
        self._bar = (
            tqdm(total=total, initial=start, unit="step", desc=self.name)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> "StepReporter":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written has been said
            self._file.close()
        if self._bar is not None:
            self._bar.close()

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Record the numbers of a finished step, counted from 1; JSON has none for infinity.

        Raises:
            StorageError: they cannot be written.
        """
        rounded = {
            key: float(f"{value:.7g}") if math.isfinite(value) else None
            for key, value in metrics.items()
        }
        with naming(self._path, "written"):
            self._file.write(json.dumps({"step": step, **rounded}) + "\n")
            self._file.flush()
        brief = {k: f"{v:.3g}" for k, v in metrics.items() if k not in HIDDEN}
        if self._bar is not None:
            self._bar.update()
            self._bar.set_postfix(brief)
        elif step % STEPS_A_LINE == 0 or step == self.total:
            shown = "  ".join(f"{key} {value}" for key, value in brief.items())
            print(f"{self.name}: step {step}/{self.total}  {shown}", flush=True)
