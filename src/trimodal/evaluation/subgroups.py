"""How often outputs are right on parts of a manifest, told apart by keys of its rows.

parts = split_scores(rows, right_N, ["figures", "held_out"])
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimodal.data import Row
from trimodal.data.row import SURROGATE
from trimodal.errors import ConfigError
from trimodal.evaluation.table import grid, percent

ROW_KEYS = ("label", "group", "speaker", "speech_lang")
"""Keys that a manifest defines; all others are those of a row's metadata."""
MOST_PARTS = 64
LONGEST_VALUE = 100
Value = str | int | float | bool | None
Point = tuple[float, float]


def split_scores(
    rows: Sequence[Row], right_N: np.ndarray, keys: Sequence[str]
) -> list[dict[str, Any]]:
    """The share of right outputs for every combination of values that occurs.

    Args:
        rows: N.
        right_N: 1 for a right output, 0 for a wrong one, NaN for one that nobody judged.
        keys: of the rows; one that a row lacks has the value None there.

    Returns:
        Trees that JSON can hold, in the order of their values: `values`, one by key, `samples`, and
        `right`, which is None where nothing was judged.
    """
    parts: dict[str, list[int]] = {}
    values = [[_value(row, key) for key in keys] for row in rows]
    for i, combination in enumerate(values):
        parts.setdefault(_identity(combination), []).append(i)
    found: list[dict[str, Any]] = []
    for places in sorted(parts.values(), key=lambda places: _order(values[places[0]])):
        chosen_N = right_N[places]
        judged_N = chosen_N[~np.isnan(chosen_N)]
        right = float(judged_N.mean()) if len(judged_N) else None
        found.append({"values": values[places[0]], "samples": len(judged_N), "right": right})
    return found


def check_keys(rows: Sequence[Row], keys: Sequence[str], source: str) -> None:
    """Refuse keys that tell no parts apart, before anything is computed.

    Raises:
        ConfigError: no row has the key, its values are no plain ones, or there are too many parts.
    """
    for key in keys:
        values = [_value(row, key) for row in rows]
        if all(value is None for value in values):
            raise ConfigError(
                f"by: no row of {source} has {key!r}; it may be {', '.join(ROW_KEYS)}, "
                "or a key that manifests do not define"
            )
        if not all(map(_is_plain, values)):
            raise ConfigError(f"by: {key!r} of {source} is not always a number or a short string")
    parts = len({_identity([_value(row, key) for key in keys]) for row in rows})
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
    every = [part["values"] for by in directions.values() for part in by]
    columns = {_identity(values): part_name(keys, values) for values in every}
    lines = []
    for direction, by in directions.items():
        cells = {
            _identity(p["values"]): f"{percent(p['right']) or '-'} of {p['samples']}" for p in by
        }
        lines.append([direction, *(cells.get(column, "") for column in columns)])
    return grid([f"right by {', '.join(keys)}", *columns.values()], lines)


def part_name(keys: Sequence[str], values: Sequence[Value]) -> str:
    """`2, held_out`: a value, or for true and false the key, with `not` before it."""
    return ", ".join(_spelt(key, value) for key, value in zip(keys, values, strict=True))


def dependence(keys: Sequence[str], by: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """The share of right outputs over the values of the first key, if these are numbers.

    Returns:
        A list of points for each combination of values of the other keys, named as `part_name`
        does; of those with two points at least.
    """
    names: dict[str, str] = {}
    lines: dict[str, list[Point]] = {}
    for part in by:
        (x, *others), right = part["values"], part["right"]
        if isinstance(x, str | bool):
            return {}
        if x is not None and right is not None:
            names[_identity(others)] = part_name(keys[1:], others)
            lines.setdefault(_identity(others), []).append((float(x), right))
    return {names[key]: points for key, points in lines.items() if len(points) > 1}


def _identity(values: Sequence[Value]) -> str:
    """Apart for true and 1, and for 1 and "1", which are equal or look alike."""
    return json.dumps(values)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_VALUE and not SURROGATE.search(value)
    if isinstance(value, int | float):
        return abs(value) <= 2**53  # NaN is not, nor is infinity
    return value is None


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
