"""JSON objects of requests, read field by field; every complaint names the field.

fields = Fields(parse_json(body)); seed = fields.whole("seed", 0, 100, default=0); fields.end()
"""

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from trimodal_serving.errors import ServingError, model_not_found

SMALL_BYTES = 1 << 14
"""Of a body, which is read in less time than it takes to hand it to a thread."""
MAX_VALUES = 1_000_000
"""Values in one request's JSON; each takes up to thirty times the memory of its text."""


def check_json(content_type: str) -> None:
    """Return if the body is declared as JSON, or not at all.

    Raises:
        ServingError: it is declared as something else.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("", "application/json"):
        raise ServingError(
            415, "unsupported_content_type", "the content-type must be application/json"
        )


def parse_json(body: bytes) -> Any:
    """The JSON of a body in UTF-8.

    Raises:
        ServingError: it is none, or has a field twice, a number that is not finite, too many values
            or too deep ones.
    """
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise ServingError(400, "bad_json", f"the request has more than {MAX_VALUES} JSON values")
    try:
        return json.loads(
            body.decode(),
            parse_float=_finite,
            parse_constant=_reject_constant,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ServingError(400, "bad_json", "the request is nested too deeply") from None
    except ValueError:
        raise ServingError(400, "bad_json", "the request is not valid JSON in UTF-8") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a field that is there twice Python would keep the last value."""
    tree = dict(pairs)
    if len(tree) < len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ServingError(400, "duplicate_field", f"the request has {shown(again)} twice")
    return tree


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError  # 1e999, which would be written as Infinity
    return number


def _reject_constant(_: str) -> NoReturn:
    raise ValueError  # NaN and Infinity are no JSON, though Python reads them


def shown(key: str) -> str:
    """A field's name for a message, if it is one that a person would give to a field."""
    plain = key.isascii() and key.isidentifier() and len(key) <= 64
    return f"a field `{key}`" if plain else "a field with an unusual name"


def blank(text: str) -> str:
    """What is wrong with a string that has nothing to be seen in it, as the end of a sentence."""
    return "holds nothing but white space" if text else "is empty"


class Fields:
    """An object whose fields are taken one by one; what is left in the end is unknown.

    A field that is null counts as absent.

    Raises:
        ServingError: it is no object.
    """

    def __init__(self, tree: Any, inside: str = "") -> None:
        """Begin with all fields.

        Args:
            tree: parsed JSON.
            inside: the field that holds the object, if it is not the request itself.
        """
        self._inside = f"{inside}." if inside else ""
        if not isinstance(tree, dict):
            what = f"`{inside}`" if inside else "the request"
            raise ServingError(
                400, "invalid_type", f"{what} must be a JSON object", param=inside or None
            )
        self._left = {key: value for key, value in tree.items() if value is not None}
        self._nulls = [key for key, value in tree.items() if value is None]
        self._taken: set[str] = set()

    def take(self, key: str, default: Any = None) -> Any:
        """Any value."""
        self._taken.add(key)
        return self._left.pop(key, default)

    def need(self, key: str) -> Any:
        """A value that must be there."""
        value = self.take(key)
        if value is None:
            raise self.refusal(key, "missing_field", "is missing")
        return value

    def model(self, served: str, *, optional: bool = False) -> None:
        """Take `model`, which must name the one that is served."""
        name = self.take("model", served) if optional else self.need("model")
        if name != served:
            raise model_not_found(served)

    def text(self, key: str, most: int | None = None) -> str:
        """A string with something in it, of at most `most` characters."""
        value = self.need(key)
        if not isinstance(value, str):
            raise self.refusal(key, "invalid_type", "must be a string")
        if not value.strip():
            raise self.refusal(key, "empty_input", blank(value))
        if most is not None and len(value) > most:
            raise self.refusal(
                key,
                "context_length_exceeded",
                f"has {len(value)} characters, the limit is {most}",
            )
        return value

    def number(self, key: str, low: float, high: float) -> float | None:
        """A number from `low` to `high`."""
        value = self.take(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not low <= value <= high or math.isnan(value):
            raise self.refusal(key, f"invalid_{key}", f"must be a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, key: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`."""
        value = self.take(key)
        if value is not None and (type(value) is not int or not low <= value <= high):
            raise self.refusal(
                key, f"invalid_{key}", f"must be a whole number from {low} to {high}"
            )
        return value

    def flag(self, key: str) -> bool:
        """True or false, which is what an absent one is."""
        value = self.take(key, False)
        if not isinstance(value, bool):
            raise self.refusal(key, "invalid_type", "must be true or false")
        return value

    def choice(
        self, key: str, known: Iterable[str], default: str | None = None, code: str | None = None
    ) -> str | None:
        """One of some words."""
        value = self.take(key, default)
        known = list(known)
        if value is not None and value not in known:
            message = f"must be one of {', '.join(known)}"
            raise self.refusal(key, code or f"invalid_{key}", message)
        return value

    def inner(self, key: str) -> "Fields":
        """An object inside; an absent one has no fields."""
        return Fields(self.take(key, {}), f"{self._inside}{key}")

    def pass_over(self, *keys: str) -> None:
        """Fields that change nothing about the answer."""
        for key in keys:
            self.take(key)

    def neutral(self, why: str, **values: tuple[Any, ...]) -> None:
        """Fields that may be there with the values that change nothing, and with no others."""
        for key, allowed in values.items():
            value = self.take(key)
            if value is not None and not any(
                value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed
            ):
                raise self.refusal(key, "unsupported_field", f"is not supported: {why}")

    def end(self) -> None:
        """Return if all fields were taken."""
        for key in (*self._left, *self._nulls):
            if key not in self._taken:
                where = f"`{self._inside[:-1]}`" if self._inside else "the request"
                param = f"{self._inside}{key}" if "`" in shown(key) else None
                raise ServingError(
                    400, "unknown_field", f"{where} has {shown(key)}, which is unknown", param=param
                )

    def where(self, key: str) -> str:
        """The place of a field in the request."""
        return f"{self._inside}{key}"

    def refusal(self, key: str, code: str, problem: str) -> ServingError:
        """An error about a field; `problem` continues a sentence that begins with its name."""
        name = self.where(key)
        return ServingError(400, code, f"`{name}` {problem}", param=name)
