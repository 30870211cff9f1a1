"""The run directory: its lock, its resolved configuration and its metrics.

with RunDirectory(Path("runs/demo")) as run: ...
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from trimodal.config import RunConfig, dump_config
from trimodal.errors import StorageError
from trimodal.lock import Lock
from trimodal.storage import naming


class RunDirectory:
    """A run's files; holds an advisory lock that ends with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.metrics = path / "metrics.jsonl"
        self.skipped = path / "skipped.jsonl"
        self._lock = Lock(path / ".lock", f"run_dir {path}")

    def __enter__(self) -> "RunDirectory":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"run_dir {self.path} cannot be used: {error.strerror}") from error
        self._lock.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._lock.__exit__(*raised)

    def write_config(self, config: RunConfig) -> None:
        """Write the resolved configuration.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.path / "config.yaml"
        with naming(path, "written"):
            dump_config(config, path)

    def cut(self, step: int) -> None:
        """Drop the lines after `step`, and damaged ones, so that no step is told of twice.

        Raises:
            StorageError: a file cannot be read or written.
        """
        for path in (self.metrics, self.skipped):
            partial = path.with_suffix(".tmp")
            with naming(path, "cut"):
                if not path.exists():
                    continue
                lines = path.read_bytes().splitlines()
                kept = b"".join(line + b"\n" for line in lines if _step(line) <= step)
                partial.write_bytes(kept)
                partial.replace(path)

    def note_skipped(self, step: int, causes: Sequence[str]) -> None:
        """Append why samples of a step were left out; any rank may.

        Raises:
            StorageError: the file cannot be written.
        """
        if not causes:
            return
        lines = (json.dumps({"step": step, "cause": cause}) + "\n" for cause in causes)
        # one write, which others do not cut
        with naming(self.skipped, "written"), self.skipped.open("ab", buffering=0) as file:
            file.write("".join(lines).encode())


def _step(line: bytes) -> float:
    """The step of a line of metrics; infinite for a line that is cut short or damaged."""
    try:
        step = json.loads(line.decode("utf-8"))["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf
