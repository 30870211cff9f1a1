"""Several runs side by side: what differs in their configurations, their numbers and their curves.

compare_runs([Path("runs/a"), Path("runs/b")], Path("compare.html"))
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimodal.config import load_config
from trimodal.errors import ConfigError, PathError
from trimodal.evaluation.run import Series, read_metrics
from trimodal.evaluation.sheet import Chapter, Sheet, Table, write_sheet
from trimodal.schema import flat, to_dict

ABSENT = "–"
LAST = 0.05
"""Share of a run whose mean stands for how it ended."""
FIRST_SHOWN = ("loss",)
"""What a reader looks for before all else."""


def compare_runs(folders: Sequence[Path], out: Path) -> None:
    """Write a page with the curves of runs, finished or not.

    Raises:
        PathError: a folder has no metrics or no configuration.
        StorageError: metrics cannot be read, or the page cannot be written.
        ConfigError: fewer than two runs, two of one name, or nothing to draw with.
    """
    try:
        from trimodal.evaluation.figures import curves
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"curves need {error.name}, which is not installed: pip install 'trimodal[train]'"
        ) from error
    names = _names(folders)
    series = {name: _metrics(folder) for name, folder in zip(names, folders, strict=True)}
    trees = {name: _settings(folder) for name, folder in zip(names, folders, strict=True)}
    chapters: dict[str, list[tuple[str, Any]]] = {}
    for metric in _ordered(series):
        lines = {name: own[metric] for name, own in series.items() if metric in own}
        chapter, _, rest = metric.rpartition("/")
        chapters.setdefault(chapter or "training", []).append((rest, curves(metric, lines)))
    sheet = Sheet(
        title=" and ".join(names) if len(names) == 2 else f"{len(names)} runs",
        tables=[
            Table("Settings that differ", ["", *names], differing(trees)),
            Table("At the end", ["", *names], _endings(series)),
        ],
        chapters=[Chapter(title, figures) for title, figures in chapters.items()],
        lines=names,
    )
    write_sheet(out, sheet)


def differing(trees: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Rows of the keys in which flat trees are not all alike, with the value of each."""
    keys = dict.fromkeys(key for tree in trees.values() for key in tree)
    rows = []
    for key in keys:
        values = [str(tree[key]) if key in tree else ABSENT for tree in trees.values()]
        if len(set(values)) > 1:
            rows.append([key, *values])
    return rows


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    if len(folders) < 2:
        raise ConfigError("two runs or more can be compared")
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ConfigError("a run is named twice")
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ConfigError("a run is named twice")


def _metrics(folder: Path) -> dict[str, Series]:
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise PathError(f"{folder} is not a run directory: it has no metrics.jsonl")
    return dict(read_metrics(path))


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    if not path.exists():
        raise PathError(f"{folder} is not a run directory: it has no config.yaml")
    return flat(to_dict(load_config(path)))


def _ordered(series: Mapping[str, Mapping[str, Series]]) -> list[str]:
    metrics = dict.fromkeys(metric for own in series.values() for metric in own)
    return sorted(metrics, key=lambda metric: metric not in FIRST_SHOWN)


def _endings(series: Mapping[str, Mapping[str, Series]]) -> list[list[str]]:
    rows = [["steps", *(str(_steps(own)) for own in series.values())]]
    for metric in _ordered(series):
        rows.append([metric, *(_ending(own.get(metric)) for own in series.values())])
    return rows


def _steps(own: Mapping[str, Series]) -> int:
    return max((int(series.steps[-1]) for series in own.values()), default=0)


def _ending(series: Series | None) -> str:
    if series is None:
        return ABSENT
    count = max(1, round(LAST * len(series.values)))
    return f"{series.values[-count:].mean():.4g}"
