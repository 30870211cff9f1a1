"""What a finished run left in its folder.

run = read_run(Path("runs/demo"))
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimodal.config import RunConfig, load_config
from trimodal.errors import ConfigError, PathError, StorageError


@dataclass(frozen=True)
class Series:
    """One number over the steps that logged it."""

    name: str
    steps: np.ndarray
    """(L,) rising."""
    values: np.ndarray
    """(L,) finite."""


@dataclass(frozen=True)
class Run:
    """A run directory, read."""

    folder: Path
    config: RunConfig
    series: Mapping[str, Series]
    """By key of `metrics.jsonl`, in the order in which the keys first occur."""

    @property
    def steps(self) -> int:
        """Steps that were logged last."""
        return max((int(series.steps[-1]) for series in self.series.values()), default=0)

    def typical(self, name: str) -> float | None:
        """The median of a number over the later half of the run, when it has settled."""
        series = self.series.get(name)
        if series is None:
            return None
        return float(np.median(series.values[len(series.values) // 2 :]))

    def total(self, name: str) -> float | None:
        """The sum of a number over the run."""
        series = self.series.get(name)
        return None if series is None else float(series.values.sum())

    def manifest(self, given: str | Path | None) -> str:
        """What to measure on: `given`, else the run's test data, else its validation data.

        Raises:
            ConfigError: there is none.
        """
        data = self.config.data
        named = given or data.test or data.validation
        if named is None:
            raise ConfigError(
                f"{self.folder}/config.yaml names neither data.test nor data.validation; "
                "give --data"
            )
        return str(named)


def read_run(folder: Path) -> Run:
    """Read the configuration and the metrics of a run.

    Raises:
        PathError: the folder is not that of a finished run.
        StorageError: `metrics.jsonl` cannot be read or is damaged.
        ConfigError: `config.yaml` is not a run's configuration.
    """
    if not folder.is_dir():
        raise PathError(f"{folder} is not a run directory: there is no such folder")
    for name in ("config.yaml", "metrics.jsonl", "model"):
        if not (folder / name).exists():
            raise PathError(f"{folder} is not a finished run: it has no {name}")
    return Run(folder, load_config(folder / "config.yaml"), read_metrics(folder / "metrics.jsonl"))


def read_results(path: Path) -> dict[str, Any] | None:
    """What `trimodal eval --json` wrote, or None if there is no such file.

    Raises:
        StorageError: the file is not such a tree.
    """
    if not path.exists():
        return None
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} cannot be read as JSON: {error}") from error
    needed = ("manifest", "rows", "samples", "retrieval", "zero_shot", "matryoshka", "geometry")
    missing = [key for key in needed if not isinstance(tree, dict) or key not in tree]
    if missing:
        raise StorageError(
            f"{path} is not what `trimodal eval --json` writes: it has no {missing[0]}"
        )
    return tree


def read_metrics(path: Path) -> dict[str, Series]:
    """Every number of a `metrics.jsonl`, by its key; half a line at its end is left out.

    Raises:
        StorageError: the file cannot be read or is damaged.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    try:
        *lines, torn = path.read_bytes().split(b"\n")
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate((*lines, torn), start=1):
        try:
            # a whole number that is too large for a float is then infinite, as 1e400 is
            tree = json.loads(line.decode("utf-8"), parse_int=float)
            step = int(np.int64(int(tree["step"])))
            found = _numbers(tree, "")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if number > len(lines):
                break
            raise StorageError(f"{path}:{number}: not a JSON object with a step") from error
        for name, value in found:
            if name != "step":
                points.setdefault(name, []).append((step, value))
    return {
        name: Series(name, np.array([s for s, _ in pairs]), np.array([v for _, v in pairs]))
        for name, pairs in points.items()
    }


def _numbers(tree: Mapping[str, Any], prefix: str) -> list[tuple[str, float]]:
    """Every finite number of a tree, with the path to it."""
    found: list[tuple[str, float]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{prefix}{key}/")
        elif type(value) is float and math.isfinite(value):
            found.append((f"{prefix}{key}", value))
    return found
