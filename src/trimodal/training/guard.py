"""What becomes of an update: taken, left out, or a return to the last good checkpoint.

verdict = Guard(config.training).judge(loss, norm)
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import Any

from trimodal.config import TrainingConfig
from trimodal.errors import NumericError

MOST_IN_A_ROW = 3
"""Updates that are not finite, one after the other, before the weights are given up."""
WINDOW = 128
"""Finite losses that a spike is told from."""
LEAST = 16
"""Of them, before which nothing is called a spike."""
NORMAL = 1.4826
"""Median absolute deviations in a standard deviation, of a normal distribution."""
FLOOR = 1e-3
"""Least deviation that counts, relative to the median: a loss that stands still has none."""


class Verdict(Enum):
    """What to do with a step's gradients."""

    APPLY = "apply"
    SKIP = "skip"
    RELOAD = "reload"


class Guard:
    """Judges losses and gradient norms that all ranks agree on, so all ranks judge alike.

    Medians are of finite losses alone: one that is not would poison a mean for as long as it stays
    in the window (which is what a guard by mean and deviation does).
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.spike = config.spike
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._in_a_row = 0
        self._reloaded = False
        self._applied = False
        """Whether any update was taken since the weights were given up."""

    def judge(self, loss: float, norm: float) -> Verdict:
        """What to do with the update of a step; a spike is left out too, if they are looked for.

        Raises:
            NumericError: the weights were given up before, and no update that was taken since has
                been saved.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._in_a_row += 1
            if self._in_a_row < MOST_IN_A_ROW:
                return Verdict.SKIP
            if self._reloaded:
                raise NumericError(
                    f"{MOST_IN_A_ROW} steps in a row are not finite again after a return to the "
                    f"last checkpoint: the loss is {loss} and the gradient norm {norm}"
                )
            self._in_a_row, self._reloaded, self._applied = 0, True, False
            return Verdict.RELOAD
        self._in_a_row = 0
        is_spike = self._is_spike(loss)
        self._losses.append(loss)
        self._applied = self._applied or not is_spike
        return Verdict.SKIP if is_spike else Verdict.APPLY

    def saved(self) -> None:
        """A checkpoint was made: progress, if its weights are others than those that came back."""
        self._reloaded = self._reloaded and not self._applied

    def state(self) -> dict[str, Any]:
        """As JSON; what `restore` takes."""
        return {
            "losses": list(self._losses),
            "in_a_row": self._in_a_row,
            "reloaded": self._reloaded,
            "applied": self._applied,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._losses = deque(state["losses"], maxlen=WINDOW)
        self._in_a_row, self._reloaded = state["in_a_row"], state["reloaded"]
        self._applied = state.get("applied", False)  # not in checkpoints of before

    def _is_spike(self, loss: float) -> bool:
        if not self.spike or len(self._losses) < LEAST:
            return False
        median = statistics.median(self._losses)
        deviation = NORMAL * statistics.median(abs(x - median) for x in self._losses)
        return loss > median + self.spike * max(deviation, FLOOR * abs(median))
