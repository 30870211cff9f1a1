"""How far a long command has come: a bar on a terminal, plain lines elsewhere.

with Progress(len(rows), "embedded", shown=True) as progress: progress.advance(32)
"""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

Row = TypeVar("Row")
SECONDS_A_LINE = 10.0


class Progress:
    """Counts rows on stderr, or says nothing if not `shown`."""

    def __init__(self, total: int | None, verb: str, shown: bool) -> None:
        """`total` is None if the number of rows is not known before they end."""
        self.total, self.verb = total, verb
        self.done = self._told = 0
        self._note = ""
        self._shown = shown
        self._lines = shown and not sys.stderr.isatty()
        self._bar = tqdm(
            total=total, desc=verb, unit=" rows", leave=False, disable=not shown or self._lines
        )
        self._next = time.monotonic() + SECONDS_A_LINE

    def advance(self, rows: int = 1, note: str = "") -> None:
        """Count more rows; `note` is shown beside the count, such as a loss."""
        self.done += rows
        self._note = f", {note}" if note else ""
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(rows)
        if self._lines and (time.monotonic() >= self._next or self.done == self.total):
            self._tell()

    def _tell(self) -> None:
        of = "" if self.total is None else f" of {self.total}"
        print(f"{self.verb} {self.done}{of} rows{self._note}", file=sys.stderr, flush=True)
        self._next = time.monotonic() + SECONDS_A_LINE
        self._told = self.done

    def say(self, line: str) -> None:
        """A line of its own, which stays above a bar."""
        if self._shown:
            self._bar.write(line, file=sys.stderr)

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, counted one by one as they are taken."""
        for row in rows:
            yield row
            self.advance()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
        if error is None and self._lines and self.total is None and self._told < self.done:
            self._tell()
