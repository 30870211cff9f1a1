"""How far a long command has come: a bar on a terminal, plain lines elsewhere.

with Progress(len(rows), "embedded", shown=True) as progress: progress.advance(32)
"""

import sys
import time
from types import TracebackType

from tqdm import tqdm

SECONDS_A_LINE = 10.0


class Progress:
    """Counts rows on stderr, or says nothing if not `shown`."""

    def __init__(self, total: int, verb: str, shown: bool) -> None:
        self.total, self.verb = total, verb
        self.done = 0
        self._lines = shown and not sys.stderr.isatty()
        self._bar = tqdm(
            total=total, desc=verb, unit=" rows", leave=False, disable=not shown or self._lines
        )
        self._next = time.monotonic() + SECONDS_A_LINE

    def advance(self, rows: int) -> None:
        """Count more rows."""
        self.done += rows
        self._bar.update(rows)
        if self._lines and (time.monotonic() >= self._next or self.done == self.total):
            print(f"{self.verb} {self.done} of {self.total} rows", file=sys.stderr, flush=True)
            self._next = time.monotonic() + SECONDS_A_LINE

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
