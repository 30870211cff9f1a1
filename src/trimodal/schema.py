"""Strict trees of plain values to frozen dataclasses, from YAML and `key=value` overrides.

config = parse(ModelConfig, {"embedding_dim": 64}, "model")
"""

import contextlib
import copy
import dataclasses
import difflib
import itertools
import math
import re
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import yaml

from trimodal.errors import ConfigError

MOST_NODES = 10_000
NO_PATH = re.compile("[\0\ud800-\udfff]")
T = TypeVar("T")


class Bounds(NamedTuple):
    """The least and the most that a number may be; stands in the annotation of a field."""

    least: float
    most: float = math.inf
    above: bool = False
    """The least itself is refused."""


Count = Annotated[int, Bounds(1)]
Natural = Annotated[int, Bounds(0)]
Positive = Annotated[float, Bounds(0, above=True)]
Amount = Annotated[float, Bounds(0)]
Share = Annotated[float, Bounds(0, 1)]


def read_tree(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The keys of a YAML file, after `dotted.key=value` overrides, whose values are YAML too.

    Raises:
        ConfigError: the file cannot be read or is not YAML, or an override is not of that form.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read: {cause}") from error
    try:
        tree = _read(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no keys")
    for item in overrides:
        override(tree, item)
    return tree


def override(tree: dict[str, Any], item: str) -> None:
    """Set one `dotted.key=value` in a tree.

    Raises:
        ConfigError: it is not of that form.
    """
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"{item!r} is not of the form key=value")
    *parents, leaf = key.split(".")
    node: Any = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{key}: {parent} is a value, it has no keys below it")
    try:
        node[leaf] = _read(text)
    except ValueError as error:
        raise ConfigError(f"{key}: {_short(text)} is not a YAML value: {error}") from error


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain dictionaries, lists and scalars, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(dataclasses.asdict(config))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree as values by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def parse(cls: type[T], tree: object, path: str) -> T:
    """Build the dataclass `cls` from plain dictionaries; `path` is where in the file this is.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a combination that cannot be.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path or 'the configuration'}: expected keys, got {_short(tree)}")
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    prefix = f"{path}." if path else ""
    _refuse_others(tree, list(fields), prefix)
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in tree:
            raise ConfigError(f"{prefix}{name}: missing")
    values = {key: _value(hints[key], item, f"{prefix}{key}") for key, item in tree.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        message = str(error)
        where = "" if not path or message.startswith(path.split(".")[-1]) else f"{path}: "
        raise ConfigError(where + message) from None


def _refuse_others(tree: Mapping[Any, Any], names: list[str], prefix: str) -> None:
    for key in tree:
        if key not in names:
            name = _short(key).strip("'")
            raise ConfigError(f"{prefix}{name}: no such key{_nearest(name, names)}")


def _nearest(key: str, names: list[str]) -> str:
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else f"; the keys are {', '.join(names)}"


def _short(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # hexadecimal, it may have more digits than Python prints
        return "a number of thousands of digits"


def _read(text: str) -> Any:
    """One YAML value.

    Raises:
        ValueError: it is none; the message says why.
    """
    try:
        return _Loader(text).get_single_data()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (LookupError, AttributeError, OverflowError):  # what PyYAML lets through
        raise ValueError("a value is not what its tag says") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    """YAML without tags, in which a key stands once and an alias is a copy of what it names."""

    def get_single_node(self) -> Any:
        return _unshared(super().get_single_node(), itertools.count(1))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                cause = f"{key.value} stands twice"
                raise yaml.constructor.ConstructorError(None, None, cause, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _unshared(node: Any, count: Iterator[int]) -> Any:
    """A copy without shared parts: an override changes one place, and no alias multiplies."""
    if next(count) > MOST_NODES:
        raise yaml.YAMLError(f"holds more than {MOST_NODES} values")
    node = copy.copy(node)
    if isinstance(node, yaml.SequenceNode):
        node.value = [_unshared(item, count) for item in node.value]
    elif isinstance(node, yaml.MappingNode):
        node.value = [tuple(_unshared(part, count) for part in pair) for pair in node.value]
    return node


def _value(hint: Any, item: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return parse(hint, item, path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        if item is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), item, path)
    if origin is Annotated:
        return _bounded(_value(arguments[0], item, path), arguments[1], path)
    if origin is Literal:
        if item not in arguments:
            allowed = ", ".join(map(str, arguments))
            raise ConfigError(f"{path}: {_short(item)} is not one of {allowed}")
        return item
    if origin is tuple:
        return _tuple(arguments, item, path)
    if origin is Mapping:
        return _mapping(arguments, item, path)
    return _scalar(hint, item, path)


def _bounded(value: Any, bounds: Bounds, path: str) -> Any:
    if bounds.most < math.inf and not bounds.least <= value <= bounds.most:
        raise ConfigError(f"{path}: {_short(value)} is not in [{bounds.least}, {bounds.most}]")
    if value < bounds.least or (bounds.above and value == bounds.least):
        limit = "above" if bounds.above else "at least"
        raise ConfigError(f"{path}: must be {limit} {bounds.least}, got {_short(value)}")
    return value


def _tuple(arguments: tuple[Any, ...], item: Any, path: str) -> tuple[Any, ...]:
    items = [item] if isinstance(item, str) else item
    if not isinstance(items, list | tuple):
        raise ConfigError(f"{path}: expected a list, got {_short(item)}")
    if arguments[-1] is not Ellipsis and len(items) != len(arguments):
        raise ConfigError(f"{path}: expected {len(arguments)} values, got {len(items)}")
    return tuple(_value(arguments[0], value, f"{path}[{i}]") for i, value in enumerate(items))


def _mapping(arguments: tuple[Any, ...], item: Any, path: str) -> dict[str, Any]:
    """Values by keys that are all of one `Literal`."""
    if not isinstance(item, Mapping):
        raise ConfigError(f"{path}: expected keys, got {_short(item)}")
    _refuse_others(item, list(typing.get_args(arguments[0])), f"{path}.")
    return {key: _value(arguments[1], value, f"{path}.{key}") for key, value in item.items()}


def _scalar(hint: Any, item: Any, path: str) -> Any:
    if hint is float and type(item) in (int, str):  # YAML 1.1 reads 1e-4 as a string
        with contextlib.suppress(ValueError, OverflowError):
            item = float(item)
    if type(item) is not hint or (isinstance(item, float) and not math.isfinite(item)):
        raise ConfigError(f"{path}: expected {hint.__name__}, got {_short(item)}")
    if isinstance(item, str) and NO_PATH.search(item):
        raise ConfigError(f"{path}: {_short(item)} holds a character that no path can")
    return item
