"""How often outputs are right on parts of a manifest, told apart by keys of its rows.

parts = split_scores(rows, right_N, ["figures", "held_out"])
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimodal.data import Row
from trimodal.errors import ConfigError
from trimodal.evaluation.table import grid, percent

ROW_KEYS = ("label", "group", "speaker", "speech_lang")
"""Keys that a manifest defines; all others are those of a row's metadata."""
MOST_PARTS = 64
Value = str | int | float | bool | None
Point = tuple[float, float]


def split_scores(
    rows: Sequence[Row], right_N: np.ndarray, keys: Sequence[str]
) -> list[dict[str, Value]]:
    """The share of right outputs for every combination of values that occurs.

    Args:
        rows: N.
        right_N: 1 for a right output, 0 for a wrong one, NaN for one that nobody judged.
        keys: of the rows; one that a row lacks has the value None there.

    Returns:
        Trees that JSON can hold, in the order of their values: a value by key, `samples`, and
        `right`, which is None where nothing was judged.
    """
    values = [tuple(_value(row, key) for key in keys) for row in rows]
    found: list[dict[str, Value]] = []
    for combination in sorted(set(values), key=_order):
        chosen_N = right_N[[one == combination for one in values]]
        judged_N = chosen_N[~np.isnan(chosen_N)]
        found.append(
            {
                **dict(zip(keys, combination, strict=True)),
                "samples": len(judged_N),
                "right": float(judged_N.mean()) if len(judged_N) else None,
            }
        )
    return found


def check_keys(rows: Sequence[Row], keys: Sequence[str], source: str) -> None:
    """Refuse keys that tell no parts apart, before anything is computed.

    Raises:
        ConfigError: no row has the key, its values are no plain ones, or there are too many parts.
    """
    for key in keys:
        values = [_value(row, key) for row in rows]
        if all(value is None for value in values):
            raise ConfigError(f"by: no row of {source} has {key!r}")
        if not all(value is None or isinstance(value, str | int | float) for value in values):
            raise ConfigError(f"by: {key!r} of {source} holds lists or objects, not single values")
    parts = len({tuple(_value(row, key) for key in keys) for row in rows})
    if parts > MOST_PARTS:
        raise ConfigError(
            f"by: {', '.join(keys)} part {source} into {parts}, at most {MOST_PARTS} can be shown"
        )


def format_parts(results: Mapping[str, Any]) -> str:
    """A line a direction, a column a part: how many are right in percent, and of how many."""
    keys = results.get("by", [])
    directions = {
        name: found["by"] for name, found in results["directions"].items() if "by" in found
    }
    if not keys or not directions:
        return ""
    names = list(dict.fromkeys(part_name(keys, part) for by in directions.values() for part in by))
    lines = []
    for direction, by in directions.items():
        cells = {part_name(keys, p): f"{percent(p['right'])} of {p['samples']}" for p in by}
        lines.append([direction, *(cells.get(name, "") for name in names)])
    return grid([f"right by {', '.join(keys)}", *names], lines)


def part_name(keys: Sequence[str], part: Mapping[str, Value]) -> str:
    """`2, held_out`: a value, or for true and false the key, with `not` before it."""
    return ", ".join(_spelt(key, part[key]) for key in keys)


def dependence(keys: Sequence[str], by: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """The share of right outputs over the values of the first key, if these are numbers.

    Returns:
        A list of points for each combination of values of the other keys, named as `part_name`
        does; of those with two points at least.
    """
    lines: dict[str, list[Point]] = {}
    for part in by:
        x, right = part[keys[0]], part["right"]
        if isinstance(x, str | bool):
            return {}
        if x is not None and right is not None:
            lines.setdefault(part_name(keys[1:], part), []).append((float(x), right))
    return {name: points for name, points in lines.items() if len(points) > 1}


def _spelt(key: str, value: Value) -> str:
    if isinstance(value, bool):
        return key if value else f"not {key}"
    return f"no {key}" if value is None else str(value)


def _value(row: Row, key: str) -> Any:
    return getattr(row, key) if key in ROW_KEYS else row.metadata.get(key)


def _order(values: Sequence[Value]) -> list[tuple[int, float, str]]:
    """Numbers by size, then strings, then what is absent."""
    return [
        (2, 0.0, "") if v is None else (1, 0.0, v) if isinstance(v, str) else (0, float(v), "")
        for v in values
    ]
