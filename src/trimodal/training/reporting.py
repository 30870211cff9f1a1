"""Where the numbers of a step go: metrics.jsonl, trackers, and the terminal.

with Reporter(run, config, start=0) as reporter: reporter.step(12, {"loss": 0.7})
"""

import contextlib
import json
import math
import sys
import time
from typing import TextIO

from tqdm import tqdm

from trimodal.config import RunConfig
from trimodal.storage import naming
from trimodal.training.run import RunDirectory
from trimodal.training.sampling import Made
from trimodal.training.trackers import Trackers

VALIDATION = "validation/"
SHOWN = ("loss", "contrastive", "masked", "target", "causal", "matching")


class Reporter:
    """Writes one line a step; shows a bar on a terminal and a plain line now and then elsewhere."""

    def __init__(self, run: RunDirectory, config: RunConfig, start: int) -> None:
        self.total = config.training.max_steps
        self._path = run.metrics
        with naming(self._path, "written"):
            self._file: TextIO = self._path.open("a", encoding="utf-8")
        self._bar = (
            tqdm(total=self.total, initial=start, unit="step") if sys.stderr.isatty() else None
        )
        self._trackers = Trackers(run, config, start)
        self._printed = 0.0

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written has been said
            self._file.close()
        if self._bar is not None:
            self._bar.close()
        self._trackers.__exit__()

    def sample(self, step: int, made: Made, sample_rate: int) -> None:
        """Show one output of a model in training."""
        self._trackers.show(made, step, sample_rate)

    def step(self, step: int, metrics: dict[str, float], trace: str = "") -> None:
        """Record the numbers of a finished step, counted from 1; JSON has none for infinity.

        Args:
            step: its number.
            metrics: by name.
            trace: what tells two runs apart to the last bit.

        Raises:
            StorageError: they cannot be written.
        """
        rounded = {
            key: float(f"{value:.7g}") if math.isfinite(value) else None
            for key, value in metrics.items()
        }
        traced = {"trace": trace} if trace else {}
        with naming(self._path, "written"):
            self._file.write(json.dumps({"step": step, **rounded, **traced}) + "\n")
            self._file.flush()
        named = {key if "/" in key else f"train/{key}": value for key, value in metrics.items()}
        self._trackers.log(named, step)
        brief = {k: f"{metrics[k]:.4g}" for k in SHOWN if k in metrics}
        if self._bar is not None:
            self._bar.update()
            self._bar.set_postfix(brief)
        elif step == self.total or time.monotonic() - self._printed > 10:
            self._printed = time.monotonic()
            shown = "  ".join(f"{key} {value}" for key, value in brief.items())
            speed = f"{metrics.get('tokens_per_second', 0):,.0f} tokens/s"
            print(f"step {step}/{self.total}  {shown}  {speed}", flush=True)
        held_out = [
            f"{key.removeprefix(VALIDATION)} {100 * value:.1f}"
            for key, value in metrics.items()
            if key.startswith(VALIDATION)
        ]
        if held_out:
            tqdm.write(f"step {step}/{self.total}  validation R@1, %:  {'  '.join(held_out)}")
