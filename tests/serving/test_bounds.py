"""What the description says of bounds is what the server enforces."""

import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from trimodal_serving.bounds import BOUNDS
from trimodal_serving.openapi import OPERATIONS, named
from trimodal_serving.operations import FORM, PICTURE, Operation

INDEX = "bounds"
INSTEAD: tuple[set[str], ...] = (
    {"texts", "images", "inputs"},
    {"input", "messages"},
    {"query", "vector"},
    {"ids", "filter"},
)
"""Fields of which a request has one."""
WITH = {"trimodal.partial_sounds": {"stream_format": "sse"}}
"""What a field is only taken with."""
ITEMS = {"images": PICTURE, "ids": "a1", "embedding_types": "float", "input": "a"}
WHERE = {"index": "name"}
"""What a complaint names in the place of a field."""
BODIES = {one.path: one for one in OPERATIONS if one.path in BOUNDS and one.method == "POST"}
Case = tuple[Operation, str, Any]


def fields_of(operation: Operation) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Names, types and bounds, those of objects inside as `outer.inner`."""
    for name, bounds in BOUNDS[operation.path].items():
        kind = operation.fields[name].partition(":")[0].rstrip("!")
        yield name, kind, dict(bounds)
        for inner, more in bounds.get("properties", {}).items():
            yield f"{name}.{inner}", more["type"], more


def beyond(operation: Operation, name: str, kind: str, bounds: dict[str, Any]) -> Iterator[Any]:
    """Values that are just outside of each bound."""
    whole = kind == "integer"
    if "minimum" in bounds:
        least, most = bounds["minimum"], bounds["maximum"]
        yield least - 1 if whole else math.nextafter(least, -math.inf)
        yield most + 1 if whole else math.nextafter(most, math.inf)
    if "minLength" in bounds:
        yield ""
    if "maxLength" in bounds:
        yield "a" * (bounds["maxLength"] + 1)
    if "enum" in bounds:
        yield f"not {bounds['enum'][0]}"
    if "pattern" in bounds:
        yield from ("A", "-a", "a.b")
    if "minItems" in bounds:
        yield []
    most = bounds.get("maxItems", bounds.get("anyOf", [{}])[0].get("maxItems"))
    if most is not None:
        example = (operation.example or {}).get(name)
        item = ITEMS.get(name) or (example[0] if isinstance(example, list) else {"content": "a"})
        yield [item] * (most + 1)
    if "minProperties" in bounds:
        yield {}
    if "maxProperties" in bounds:
        yield {f"a{i}": "string" for i in range(bounds["maxProperties"] + 1)}


def body(operation: Operation, name: str, value: Any) -> dict[str, Any]:
    """The example with one value in it, and nothing that stands in its place."""
    outer, _, inner = name.partition(".")
    others = set().union(*(group for group in INSTEAD if outer in group)) - {outer}
    tree = {key: one for key, one in (operation.example or {}).items() if key not in others}
    if "index" in tree:
        tree["index"] = INDEX
    return named(tree, "tiny") | WITH.get(name, {}) | {outer: {inner: value} if inner else value}


CASES: list[Case] = [
    (operation, name, value)
    for operation in BODIES.values()
    for name, kind, bounds in fields_of(operation)
    for value in beyond(operation, name, kind, bounds)
]
WITHIN: list[Case] = [
    (operation, name, value)
    for operation in BODIES.values()
    for name, _, bounds in fields_of(operation)
    if "minimum" in bounds
    for value in (bounds["minimum"], bounds["maximum"])
]


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[httpx.Client]:
    """Of a server that has an index."""
    with httpx.Client(base_url=base_url, timeout=120) as client:
        client.post("/v1/indexes", json={"name": INDEX, "fields": {"year": "integer"}})
        yield client
        client.delete(f"/v1/indexes/{INDEX}")


def answer(client: httpx.Client, case: Case, wav: bytes) -> httpx.Response:
    operation, name, value = case
    path = operation.path.replace("{name}", INDEX).replace("{model}", "tiny")
    tree = body(operation, name, value)
    if operation.kind == FORM:
        return client.post(path, data=tree, files={"file": ("a.wav", wav)})
    return client.post(path, json=tree)


def label(value: Any) -> str:
    return value.path if isinstance(value, Operation) else repr(value)[:20]


def test_every_path_with_bounds_takes_a_body() -> None:
    assert set(BODIES) == set(BOUNDS)
    assert len(CASES) > 80


@pytest.mark.parametrize(("operation", "name", "value"), CASES, ids=label)
def test_what_is_beyond_a_bound_is_refused(
    client: httpx.Client, wav: bytes, operation: Operation, name: str, value: Any
) -> None:
    refused = answer(client, (operation, name, value), wav)
    assert refused.status_code in (400, 413), refused.text
    assert refused.json()["error"]["param"].startswith(WHERE.get(name, name))


@pytest.mark.parametrize(("operation", "name", "value"), WITHIN, ids=label)
def test_a_bound_itself_is_let_through(
    client: httpx.Client, wav: bytes, operation: Operation, name: str, value: Any
) -> None:
    answered = answer(client, (operation, name, value), wav)
    assert answered.status_code == 200, answered.text
