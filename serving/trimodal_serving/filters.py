"""Conditions on what an index knows of its items, as small JSON trees.

condition = parse_filter({"year": {"gte": 2020}, "not": {"kind": "draw"}}, fields)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trimodal_serving.errors import ServingError
from trimodal_serving.fields import shown

MAX_CONDITIONS = 64
MAX_DEPTH = 8
MAX_VALUES = 256
"""In the list of an `in`."""
MAX_TEXT = 1024
"""Characters of a string."""
TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
"""What a field of an index may be."""
ORDERED = ("eq", "ne", "gt", "gte", "lt", "lte")
BUILT_IN = {"id": "string", "modality": "string"}

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Compared:
    """A field against a value; never true of an item that lacks the field."""

    field: str
    operator: str
    """One of `ORDERED`."""
    value: Scalar


@dataclass(frozen=True)
class Among:
    """A field that has one of some values."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Exists:
    """A field that an item has."""

    field: str


@dataclass(frozen=True)
class Not:
    """What a condition is not true of."""

    inner: "Condition"


@dataclass(frozen=True)
class Joined:
    """All of some conditions, or any."""

    how: Literal["and", "or"]
    parts: "tuple[Condition, ...]"


Condition = Compared | Among | Exists | Not | Joined


def fault(value: Any, kind: str) -> str | None:
    """Why a value is none of one of `TYPES` that can be kept and compared, if it is not.

    It continues a sentence that begins with the name of the value.
    """
    if type(value) not in TYPES[kind]:
        return f"must be {'an' if kind == 'integer' else 'a'} {kind}"
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            return f"has {len(value)} characters, the limit is {MAX_TEXT}"
        return None if is_plain(value) else "must be Unicode without NUL"
    if isinstance(value, bool) or -(2**63) <= value < 2**63:
        return None
    return "must be at least -2^63 and less than 2^63"


def is_plain(text: str) -> bool:
    """Whether a string is Unicode without NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def parse_filter(tree: Any, fields: Mapping[str, str]) -> Condition:
    """Read a filter.

    Args:
        tree: parsed JSON. `{"field": value}` compares, `{"field": {"gte": value}}` says how (eq,
            ne, gt, gte, lt, lte, in, exists), several keys are all true, and `and`, `or` (lists)
            and `not` join filters.
        fields: what can be asked about, and its type.

    Raises:
        ServingError: none of these forms, an unknown field, a value of another type, or too much.
    """
    return _Parser({**BUILT_IN, **fields}).read(tree, "filter", 1)


class _Parser:
    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._left = MAX_CONDITIONS

    def read(self, tree: Any, where: str, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise _bad(where, f"is nested more than {MAX_DEPTH} deep")
        if not isinstance(tree, dict) or not tree:
            raise _bad(where, "must be an object with something in it")
        parts = []
        for key, value in tree.items():
            parts += self._entry(key, value, where, depth)
        return parts[0] if len(parts) == 1 else Joined("and", tuple(parts))

    def _entry(self, key: str, value: Any, where: str, depth: int) -> list[Condition]:
        if key == "not":
            return [Not(self.read(value, f"{where}.not", depth + 1))]
        if key in ("and", "or"):
            inside = f"{where}.{key}"
            if not isinstance(value, list) or not value:
                raise _bad(inside, "must be a list with something in it")
            parts = [self.read(v, f"{inside}[{i}]", depth + 1) for i, v in enumerate(value)]
            return [Joined("or" if key == "or" else "and", tuple(parts))]
        if key not in self._fields:
            known = ", ".join(self._fields)
            raise _bad(where, f"has {shown(key)}, which is none of {known}")
        inside = f"{where}.{key}"
        if not isinstance(value, dict):
            return [self._compared(key, "eq", value, inside)]
        if not value:
            raise _bad(inside, "must have something in it")
        return [self._operation(key, name, one, inside) for name, one in value.items()]

    def _operation(self, field: str, name: str, value: Any, where: str) -> Condition:
        if name in ORDERED:
            return self._compared(field, name, value, f"{where}.{name}")
        if name == "exists":
            self._count(where)
            if not isinstance(value, bool):
                raise _bad(f"{where}.exists", "must be true or false")
            return Exists(field) if value else Not(Exists(field))
        if name != "in":
            known = ", ".join((*ORDERED, "in", "exists"))
            raise _bad(where, f"has {shown(name)}, which is none of {known}")
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES:
            raise _bad(f"{where}.in", f"must be a list of 1 to {MAX_VALUES} values")
        self._count(where)
        return Among(field, tuple(self._value(field, one, f"{where}.in") for one in value))

    def _compared(self, field: str, name: str, value: Any, where: str) -> Condition:
        self._count(where)
        kind = self._fields[field]
        if name not in ("eq", "ne") and kind == "boolean":
            raise _bad(where, "compares truth values, which have no order")
        return Compared(field, name, self._value(field, value, where))

    def _value(self, field: str, value: Any, where: str) -> Scalar:
        kind = self._fields[field]
        if (problem := fault(value, kind)) is not None:
            raise _bad(where, problem)
        return float(value) if kind == "number" else value

    def _count(self, where: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise _bad(where, f"is one of more than {MAX_CONDITIONS} conditions")


def _bad(where: str, problem: str) -> ServingError:
    return ServingError(400, "invalid_filter", f"`{where}` {problem}", param=where)
